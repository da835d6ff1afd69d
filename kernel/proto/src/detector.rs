//! Which failure detector serves which group.
//!
//! A choice is a node below [`DETECTORS`], for every client to read and watch; only the kernel
//! writes it. Its value is a [`PolicyChoice`](crate::partition::PolicyChoice) as JSON, and the zxid
//! that set it last is when the detector was chosen.

/// Where the choices are. The directory is there once a detector was chosen.
pub const DETECTORS: &str = "/folkmoot/detectors";

/// The name of the choice for sessions that are in no group, or in one that has none of its own. No
/// group is called so.
pub const DEFAULT: &str = "@default";

/// The node of a group's choice; the default's, if the group is empty.
#[must_use]
pub fn detector_path(group: &str) -> String {
    let name = if group.is_empty() { DEFAULT } else { group };
    format!("{DETECTORS}/{name}")
}

/// The group whose choice a node of this name is; empty for the default's.
#[must_use]
pub fn group_of_node(name: &str) -> &str {
    if name == DEFAULT { "" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_no_groups() {
        assert!(crate::group::check_name("group", DEFAULT).is_err());
        for group in ["", "workers"] {
            let path = detector_path(group);
            let (_, name) = crate::split_last(&path).expect("it is below a directory");
            assert_eq!(group_of_node(name), group);
            assert!(crate::NodePath::check(&path).is_ok());
        }
    }
}
