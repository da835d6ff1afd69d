//! Previews: what would be planned, for an operator, without doing it.

use folkmoot_proto::partition::MapRecord;
use folkmoot_proto::{LogTime, MapId, Now, Tick};

use super::answer;
use super::question::{Question, Rows};
use super::roster::Roster;
use super::{fallback, plan};
use crate::execution::Execution;
use crate::policy::{PolicyAnswer, Table};
use crate::state::View;

/// Bytes of a preview's answer.
const PREVIEW_BYTES_MAX: usize = 256 * 1024;

/// A preview that a policy was asked for.
#[derive(Debug)]
pub(in crate::execution::leader) struct Preview {
    map: MapId,
    rows: Rows,
}

impl Execution {
    /// What a policy is asked that is to plan for a group's map, at `active` on the leader's active
    /// clock; none where there is no map any more.
    pub(in crate::execution::leader) fn preview(
        &self,
        now: Now,
        active: Tick,
        group: &str,
    ) -> Option<(Preview, Vec<Table>)> {
        let view = self.speculative();
        let (map, record) = view.map_of(group)?;
        let mut question = Question::new(view, (map, record));
        question.gather(view, usize::MAX);
        let log_time = self.txn_log_time(now);
        let (mut tables, rows) = question.finish(record.config.replicas, "request", log_time);
        let leader = self.leader.as_ref();
        if let Some(controller) = leader.and_then(|leader| leader.maps.controllers.get(&map)) {
            controller.loads.add_to(&mut tables, &rows, active);
        }
        Some((Preview { map, rows }, tables))
    }

    /// What a policy answered, in JSON.
    pub(in crate::execution::leader) fn describe(
        &self,
        now: Now,
        preview: &Preview,
        answer: PolicyAnswer,
    ) -> String {
        let view = self.speculative();
        let described = match (view.map(preview.map), answer) {
            (None, _) => Err("there is no map any more".to_owned()),
            (_, Err(failure)) => Err(failure.to_string()),
            (Some(record), Ok(answer)) => {
                let mut roster = Roster::new(record);
                let map = (preview.map, record);
                let log_time = self.txn_log_time(now);
                answer::read(&answer, &preview.rows, view, map, &mut roster, log_time)
                    .map(|read| answer::describe(&read.plan, &answer, view, map))
            }
        };
        let described =
            described.unwrap_or_else(|problem| serde_json::json!({ "problem": problem }));
        bounded(view, &described)
    }
}

/// What the kernel would do where there is no policy, in JSON.
pub(super) fn of_the_kernel(
    view: &impl View,
    (map, record): (MapId, &MapRecord),
    now: LogTime,
) -> String {
    let mut roster = Roster::new(record);
    let plan = fallback::plan(view, (map, record), &mut roster, now, false);
    let plan = plan::held_back(record, plan);
    bounded(view, &answer::describe(&plan, &[], view, (map, record)))
}

fn bounded(view: &impl View, text: &serde_json::Value) -> String {
    let text = text.to_string();
    let bytes_max = PREVIEW_BYTES_MAX.min(view.limits().txn_bytes_max as usize / 2);
    if text.len() <= bytes_max {
        return text;
    }
    serde_json::json!({ "problem": "the plan is too long to be shown" }).to_string()
}
