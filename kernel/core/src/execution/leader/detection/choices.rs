//! Which failure detector serves which group: nodes that the kernel alone writes, changed while
//! everything runs.

use folkmoot_proto::detector::{DETECTORS, detector_path, group_of_node};
use folkmoot_proto::group::check_name;
use folkmoot_proto::limits::{DETECTORS_MAX, POLICY_CONFIG_BYTES_MAX};
use folkmoot_proto::partition::PolicyChoice;
use folkmoot_proto::reply::{Outcome, Refusal};
use folkmoot_proto::{Digest, Zxid};

use crate::execution::leader::components::check_policy;
use crate::execution::leader::draft::Draft;
use crate::execution::leader::groups::{bad_member, check_children, json, put};
use crate::execution::leader::operations::{check_count, check_value, delete_unchecked};
use crate::policy::PolicyWorld;
use crate::state::View;

/// Has a detector serve a group, or none of its own. After a refusal the caller rolls the draft
/// back.
pub(in crate::execution::leader) fn choose(
    draft: &mut Draft,
    group: &str,
    choice: Option<&PolicyChoice>,
) -> Result<Outcome, Refusal> {
    if !group.is_empty() {
        check_name("group", group).map_err(bad_member)?;
    }
    let path = detector_path(group);
    let is_there = draft.view().node(&path).is_some();
    match choice {
        Some(choice) => {
            let bytes = choice.configuration.len();
            let what = "bytes of a policy's configuration";
            check_count(what, bytes, POLICY_CONFIG_BYTES_MAX)?;
            check_policy(draft, choice.digest, PolicyWorld::FailureDetector)?;
            let bytes = json(choice);
            check_value(draft, &bytes)?;
            if draft.view().node(DETECTORS).is_none() {
                put(draft, DETECTORS, Vec::new(), None)?;
            }
            if !is_there {
                let what = "failure detectors that are chosen";
                check_children(what, draft, DETECTORS, DETECTORS_MAX)?;
            }
            put(draft, &path, bytes, None)?;
        }
        None if is_there => delete_unchecked(draft, &path)?,
        None => {}
    }
    Ok(Outcome::DetectorChosen)
}

/// The groups with a choice of their own, the default's being the empty one, and the zxids at which
/// these were made.
pub(super) fn chosen(view: &impl View) -> Vec<(String, Zxid)> {
    let names = view.children(DETECTORS, None, usize::MAX).into_iter();
    let groups = names.map(|name| group_of_node(&name).to_owned());
    let with_zxid = |group: String| {
        let zxid = view.node(&detector_path(&group))?.stat.mzxid;
        Some((group, zxid))
    };
    groups.filter_map(with_zxid).collect()
}

/// The choice of a group that has one.
pub(super) fn choice(view: &impl View, group: &str) -> Option<PolicyChoice> {
    let path = detector_path(group);
    match serde_json::from_slice(view.node(&path)?.data) {
        Ok(choice) => Some(choice),
        Err(error) => panic!("{path} is written by the kernel alone, and: {error}"),
    }
}

/// What has the component among the choices, in words.
pub(in crate::execution::leader) fn user_of(view: &impl View, digest: Digest) -> Option<String> {
    let has = |group: &String| choice(view, group).is_some_and(|of| of.digest == digest);
    let mut groups = chosen(view).into_iter().map(|(group, _)| group);
    let group = groups.find(has)?;
    Some(match group.is_empty() {
        true => "the choice of a failure detector by default".to_owned(),
        false => format!("the choice of a failure detector for {group}"),
    })
}
