//! The compact encoding that log and checkpoint share: varints, and byte strings with their length.
//!
//! Decoding is strict: one value has one encoding, every byte is accounted for, and nothing is
//! allocated beyond the bytes that are there.

/// Why bytes do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end within a value.
    #[error("the bytes end within a value")]
    Truncated,
    /// A number has a longer encoding than it needs, or is out of range.
    #[error("a number is not in its shortest form, or out of range")]
    BadNumber,
    /// A tag that this version does not know.
    #[error("unknown tag {tag} of {what}")]
    UnknownTag {
        /// What has the tag.
        what: &'static str,
        /// The tag.
        tag: u8,
    },
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
    /// Bytes are left behind a value.
    #[error("{bytes} bytes are left behind the value")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A count or a sum that the rest contradicts.
    #[error("{what} contradicts the rest")]
    Contradiction {
        /// What.
        what: &'static str,
    },
}
