//! Paths of nodes.

use core::fmt;

use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};

/// An absolute, valid path: `/`, or `/a/b`, without empty, `.` or `..` components, control
/// characters or a slash at the end. The rules are ZooKeeper's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePath(Box<str>);

/// Why a text is no path.
#[derive(
    Clone, Debug, PartialEq, Eq, thiserror::Error, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("a path begins with '/'")]
    NotAbsolute,
    /// It ends with a slash, or has two in a row.
    #[error("a path has no empty component")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("a path has no component '.' or '..'")]
    RelativeComponent,
    /// It has a control character.
    #[error("a path has no control character")]
    ControlCharacter,
    /// A limit of [`crate::limits`].
    #[error(
        "a path has at most {PATH_BYTES_MAX} bytes, {PATH_DEPTH_MAX} components and {NAME_BYTES_MAX} bytes in each"
    )]
    TooLong,
}

impl NodePath {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Checks `text` and takes it as a path.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        Self::check(text).map(|()| Self(text.into()))
    }

    /// Checks whether `text` is a path.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(text: &str) -> Result<(), PathError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PathError::NotAbsolute);
        };
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if rest.is_empty() {
            return Ok(());
        }
        let mut depth = 0;
        for name in rest.split('/') {
            check_name(name)?;
            depth += 1;
        }
        if depth > PATH_DEPTH_MAX {
            return Err(PathError::TooLong);
        }
        Ok(())
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The path above; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.split_last().map(|(parent, _)| Self(parent.into()))
    }

    /// The last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.split_last().map_or("", |(_, name)| name)
    }

    /// The parent's path and the last component; none for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(&str, &str)> {
        split_last(&self.0)
    }

    /// The components from the top.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The path of a child.
    ///
    /// # Errors
    ///
    /// What is wrong with `name` as a component, or that the whole would be too long.
    pub fn child(&self, name: &str) -> Result<Self, PathError> {
        let mut text = String::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_root() {
            text.push_str(&self.0);
        }
        text.push('/');
        text.push_str(name);
        Self::parse(&text)
    }

    /// The path `relative` (components joined by `/`, without one in front) below this one; this
    /// path itself where `relative` is empty.
    ///
    /// # Errors
    ///
    /// As [`NodePath::parse`].
    pub fn join(&self, relative: &str) -> Result<Self, PathError> {
        match (relative.is_empty(), self.is_root()) {
            (true, _) => Ok(self.clone()),
            (false, true) => Self::parse(&format!("/{relative}")),
            (false, false) => Self::parse(&format!("{}/{relative}", self.0)),
        }
    }

    /// Whether `other` is this path or lies below it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.is_root()
            || other
                .0
                .strip_prefix(&*self.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The parent's path and the last component of a valid path; none for the root.
#[must_use]
pub fn split_last(path: &str) -> Option<(&str, &str)> {
    let (parent, name) = path.rsplit_once('/')?;
    if name.is_empty() {
        return None;
    }
    Some((if parent.is_empty() { "/" } else { parent }, name))
}

fn check_name(name: &str) -> Result<(), PathError> {
    match name {
        "" => Err(PathError::EmptyComponent),
        "." | ".." => Err(PathError::RelativeComponent),
        _ if name.len() > NAME_BYTES_MAX => Err(PathError::TooLong),
        _ if name.chars().any(char::is_control) => Err(PathError::ControlCharacter),
        _ => Ok(()),
    }
}

impl core::str::FromStr for NodePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_zookeeper_accepts() {
        for text in ["/", "/a", "/a/b", "/ünï/…", "/a b"] {
            assert_eq!(
                NodePath::parse(text).map(|path| path.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn refuses_each_kind_of_bad_path() {
        for (text, error) in [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("/a/", PathError::EmptyComponent),
            ("//a", PathError::EmptyComponent),
            ("/a/./b", PathError::RelativeComponent),
            ("/..", PathError::RelativeComponent),
            ("/a\u{0}", PathError::ControlCharacter),
        ] {
            assert_eq!(NodePath::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn limits_hold_at_the_cap_and_one_above() {
        let name = "n".repeat(NAME_BYTES_MAX);
        assert!(NodePath::parse(&format!("/{name}")).is_ok());
        assert_eq!(
            NodePath::parse(&format!("/{name}n")),
            Err(PathError::TooLong)
        );
        assert!(NodePath::parse(&"/d".repeat(PATH_DEPTH_MAX)).is_ok());
        assert_eq!(
            NodePath::parse(&"/d".repeat(PATH_DEPTH_MAX + 1)),
            Err(PathError::TooLong)
        );
        let long = format!("/{}", [name.as_str(); 4].join("/"));
        assert_eq!(long.len(), PATH_BYTES_MAX);
        assert!(NodePath::parse(&long).is_ok());
        assert_eq!(
            NodePath::parse(&format!("{long}/n")),
            Err(PathError::TooLong)
        );
    }

    #[test]
    fn containment_is_by_component() {
        let path = |text| NodePath::parse(text).expect("a valid path");
        assert!(path("/a").contains(&path("/a")));
        assert!(path("/a").contains(&path("/a/b")));
        assert!(!path("/a").contains(&path("/ab")));
        assert!(path("/").contains(&path("/ab")));
    }
}
