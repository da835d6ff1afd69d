//! A plugin's "no".

use core::fmt;

use crate::host::TreeError;

/// A result like any other: it is logged and given to the caller, and what the call wrote is
/// undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What a program reacts to, in kebab-case, such as `held`.
    pub code: String,
    /// What a person reads.
    pub message: String,
    /// Facts by name.
    pub details: Vec<(String, String)>,
}

impl Rejection {
    /// The code of a rejection of arguments that are not what the operation takes.
    pub const BAD_ARGUMENTS: &'static str = "bad-arguments";
    /// The code of a rejection of an operation that the plugin does not have.
    pub const UNKNOWN_OPERATION: &'static str = "unknown-operation";

    /// A rejection without details.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            code: code.into(),
            message: message.to_string(),
            details: Vec::new(),
        }
    }

    /// The same with one fact more.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.details.push((name.into(), value.to_string()));
        self
    }

    /// The arguments are not what the operation takes.
    #[must_use]
    pub fn bad_arguments(message: impl fmt::Display) -> Self {
        Self::new(Self::BAD_ARGUMENTS, message)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl core::error::Error for Rejection {}

impl From<TreeError> for Rejection {
    fn from(error: TreeError) -> Self {
        Self::new(error.code(), &error)
    }
}
