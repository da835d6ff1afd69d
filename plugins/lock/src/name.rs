//! Names of locks, and the paths that they make.

use folkmoot_sdk::prelude::*;

/// The node above the holders.
pub(crate) const HOLDERS: &str = "holders";
/// The node above those who wait.
pub(crate) const QUEUE: &str = "queue";
/// Bytes of a name: with the queue's number behind it it is a node's name, which has at most 255.
pub(crate) const BYTES_MAX: usize = 200;
/// Stands between a lock's name and a number, and so in no name.
const SEPARATOR: char = '#';
/// Digits of the kernel's numbers.
const NUMBER_DIGITS: usize = 20;

/// A name that a lock can have: 1 to 200 bytes, without `/`, `#` and control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LockName(String);

impl LockName {
    /// Checks a name that a client gave.
    pub(crate) fn parse(name: String) -> Result<Self, Rejection> {
        let fine = (1..=BYTES_MAX).contains(&name.len())
            && !matches!(name.as_str(), "." | "..")
            && !name
                .chars()
                .any(|c| c.is_control() || matches!(c, '/' | SEPARATOR));
        if fine {
            Ok(Self(name))
        } else {
            Err(Rejection::new(
                "bad-name",
                "a lock's name has 1 to 200 bytes and no '/', '#' or control character",
            )
            .with("name", name))
        }
    }

    /// The name of the lock whose holder is at a path below the mount.
    pub(crate) fn of_holder(path: &str) -> Option<Self> {
        let (parent, name) = path.split_once('/')?;
        if parent == HOLDERS {
            Self::parse(name.to_owned()).ok()
        } else {
            None
        }
    }

    /// The name of the lock in whose queue an entry is.
    pub(crate) fn of_entry(entry: &str) -> Option<Self> {
        let (name, number) = entry.split_once(SEPARATOR)?;
        if number.len() == NUMBER_DIGITS {
            Self::parse(name.to_owned()).ok()
        } else {
            None
        }
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the holder's node.
    pub(crate) fn holder(&self) -> String {
        format!("{HOLDERS}/{}", self.0)
    }

    /// What the names of the queue's entries begin with.
    pub(crate) fn entry_prefix(&self) -> String {
        format!("{}{SEPARATOR}", self.0)
    }

    /// The path of a queue's entry.
    pub(crate) fn entry(entry: &str) -> String {
        format!("{QUEUE}/{entry}")
    }

    /// A name behind all entries of this lock's queue and before those of any other: the character
    /// after the separator.
    pub(crate) fn behind_entries(&self) -> String {
        format!("{}$", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_limited() {
        for good in ["a", "deploy:prod", "ü", &"n".repeat(200)] {
            assert!(LockName::parse(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a#b", "a\n", &"n".repeat(201)] {
            let rejection = LockName::parse(bad.to_owned()).expect_err(bad);
            assert_eq!(rejection.code, "bad-name");
        }
    }

    #[test]
    fn paths_lead_back_to_the_lock() {
        let name = LockName::parse("deploy".to_owned()).expect("a good name");
        assert_eq!(LockName::of_holder(&name.holder()), Some(name.clone()));
        let entry = format!("{}00000000000000000007", name.entry_prefix());
        assert_eq!(LockName::of_holder(&LockName::entry(&entry)), None);
        assert_eq!(LockName::of_entry(&entry), Some(name));
        assert_eq!(LockName::of_entry("deploy#7"), None);
    }

    #[test]
    fn entries_of_one_lock_are_together() {
        let name = LockName::parse("a".to_owned()).expect("a good name");
        let last = format!("{}{}", name.entry_prefix(), "9".repeat(20));
        assert!(last < name.behind_entries());
        assert!(name.behind_entries().as_str() < "a0#00000000000000000000");
    }
}
