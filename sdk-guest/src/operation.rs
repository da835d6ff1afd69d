//! What a client asks, and how a plugin answers.

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::ids::LogTime;
use crate::rejection::Rejection;

/// What a client asks of a plugin: an operation with its arguments, a JSON object.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    name: &'a str,
    payload: &'a [u8],
}

impl<'a> Operation<'a> {
    /// The operation `name` with its payload as it came; an empty one is an empty object.
    #[must_use]
    pub const fn new(name: &'a str, payload: &'a [u8]) -> Self {
        Self { name, payload }
    }

    /// The operation's name.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// The payload as it came.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// All arguments, as a type that derives `Deserialize`. Put `#[serde(deny_unknown_fields)]` on
    /// it, so that a misspelt argument is refused.
    ///
    /// # Errors
    ///
    /// A rejection `bad-arguments` that says what is wrong and where.
    pub fn arguments<T: DeserializeOwned>(&self) -> Result<T, Rejection> {
        let payload: &[u8] = if self.payload.is_empty() {
            b"{}"
        } else {
            self.payload
        };
        // Serde would take an array as the fields in order.
        if payload.trim_ascii_start().first() != Some(&b'{') {
            return Err(Rejection::bad_arguments(format_args!(
                "{}: the arguments are no JSON object",
                self.name
            )));
        }
        serde_json::from_slice(payload)
            .map_err(|error| Rejection::bad_arguments(format_args!("{}: {error}", self.name)))
    }

    /// One argument of several.
    ///
    /// # Errors
    ///
    /// A rejection `bad-arguments`: it is missing, or something else.
    pub fn argument<T: DeserializeOwned>(&self, name: &str) -> Result<T, Rejection> {
        let mut all: serde_json::Map<String, serde_json::Value> = self.arguments()?;
        let Some(value) = all.remove(name) else {
            return Err(Rejection::bad_arguments(format_args!(
                "{}: the argument {name} is missing",
                self.name
            )));
        };
        serde_json::from_value(value).map_err(|error| {
            Rejection::bad_arguments(format_args!("{}: the argument {name}: {error}", self.name))
        })
    }

    /// Checks that there are no arguments.
    ///
    /// # Errors
    ///
    /// A rejection `bad-arguments`.
    pub fn no_arguments(&self) -> Result<(), Rejection> {
        let all: std::collections::BTreeMap<String, IgnoredAny> = self.arguments()?;
        match all.keys().next() {
            None => Ok(()),
            Some(name) => Err(Rejection::bad_arguments(format_args!(
                "{} takes no argument, {name} was given",
                self.name
            ))),
        }
    }

    /// The rejection for an operation that the plugin does not have.
    #[must_use]
    pub fn unknown(&self) -> Rejection {
        Rejection::new(
            Rejection::UNKNOWN_OPERATION,
            format_args!("there is no operation {:?}", self.name),
        )
    }
}

/// How a plugin answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At once, with JSON.
    Reply(Vec<u8>),
    /// Later: a call of the same mount completes the wait, or the kernel ends it.
    Wait {
        /// When the kernel ends it; none for never.
        deadline: Option<LogTime>,
        /// What the event `wait-ended` gives back.
        memo: Vec<u8>,
    },
}

impl Outcome {
    /// Answers at once.
    ///
    /// # Errors
    ///
    /// A rejection `bad-reply` if `reply` has no JSON, such as a map whose keys are no strings.
    pub fn reply<T: Serialize + ?Sized>(reply: &T) -> Result<Self, Rejection> {
        to_json(reply).map(Self::Reply)
    }

    /// Answers later. The ticket is [`crate::context::Context::ticket`].
    #[must_use]
    pub fn wait(deadline: Option<LogTime>, memo: impl Into<Vec<u8>>) -> Self {
        Self::Wait {
            deadline,
            memo: memo.into(),
        }
    }
}

/// `value` as JSON.
///
/// # Errors
///
/// A rejection `bad-reply` if it has none.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Rejection> {
    serde_json::to_vec(value).map_err(|error| Rejection::new("bad-reply", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_payload_is_an_empty_object() {
        assert_eq!(Operation::new("read", b"").no_arguments(), Ok(()));
    }

    #[test]
    fn arguments_that_are_not_asked_for_are_named() {
        let operation = Operation::new("read", br#"{"x": 1}"#);
        let rejection = operation.no_arguments().expect_err("x is not taken");
        assert_eq!(rejection.code, Rejection::BAD_ARGUMENTS);
        assert_eq!(rejection.message, "read takes no argument, x was given");
    }

    #[test]
    fn an_argument_is_found_among_others_or_named_as_missing() {
        let operation = Operation::new("add", br#"{"amount": 3, "why": "test"}"#);
        assert_eq!(operation.argument::<u64>("amount"), Ok(3));
        let rejection = operation.argument::<u64>("total").expect_err("no total");
        assert_eq!(rejection.message, "add: the argument total is missing");
        let rejection = operation.argument::<u64>("why").expect_err("no number");
        assert_eq!(rejection.code, Rejection::BAD_ARGUMENTS);
    }

    #[test]
    fn a_payload_that_is_no_json_is_refused() {
        let rejection = Operation::new("add", b"\xff")
            .argument::<u64>("amount")
            .expect_err("no JSON");
        assert_eq!(rejection.code, Rejection::BAD_ARGUMENTS);
    }
}
