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

/// A value with a compact encoding.
pub trait Compact: Sized {
    /// Appends the encoding.
    fn encode(&self, out: &mut Vec<u8>);

    /// Takes a value from the front of `input`.
    ///
    /// # Errors
    ///
    /// If the bytes are not exactly what [`Compact::encode`] makes of some value.
    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError>;

    /// The encoding.
    fn to_compact(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// A value from all of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`Compact::decode`], and if bytes are left.
    fn from_compact(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Input::new(bytes);
        let value = Self::decode(&mut input)?;
        input.finish()?;
        Ok(value)
    }
}

/// Bytes that are being decoded.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether none are left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    ///
    /// If there are fewer.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next byte.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    ///
    /// If there are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (&array, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(array)
    }

    /// A number: seven bits a byte, the lowest first, the top bit set on all but the last.
    ///
    /// # Errors
    ///
    /// If it is cut short, has a zero byte at its end, or does not fit 64 bits.
    pub fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                return Err(DecodeError::BadNumber);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::BadNumber)
    }

    /// A count of values that follow, each of at least one byte.
    ///
    /// # Errors
    ///
    /// If so many can not follow.
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.number()?).map_err(|_| DecodeError::BadNumber)?;
        if count > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    /// A byte string: its length and its bytes.
    ///
    /// # Errors
    ///
    /// If it is cut short.
    pub fn byte_string(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count()?;
        self.take(len)
    }

    /// Ends decoding.
    ///
    /// # Errors
    ///
    /// If bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }
}

/// Appends a number, as [`Input::number`] reads it.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a byte string, as [`Input::byte_string`] reads it.
pub fn put_byte_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Values of a list that are allocated before they are read; more grow as they come, since what a
/// value takes in memory is more than what it takes in the input.
const PREALLOCATED_MAX: usize = 32;

/// Reads `count` values.
///
/// # Errors
///
/// As [`Compact::decode`].
pub fn decode_many<T: Compact>(input: &mut Input<'_>, count: usize) -> Result<Vec<T>, DecodeError> {
    let mut values = Vec::with_capacity(count.min(PREALLOCATED_MAX));
    for _ in 0..count {
        values.push(T::decode(input)?);
    }
    Ok(values)
}

impl Compact for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, *self);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        input.number()
    }
}

impl Compact for u32 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, u64::from(*self));
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        Self::try_from(input.number()?).map_err(|_| DecodeError::BadNumber)
    }
}

impl Compact for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        match input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::BadNumber),
        }
    }
}

impl Compact for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_byte_string(out, self);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        input.byte_string().map(<[u8]>::to_vec)
    }
}

impl Compact for bytes::Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        put_byte_string(out, self);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        input.byte_string().map(Self::copy_from_slice)
    }
}

impl Compact for String {
    fn encode(&self, out: &mut Vec<u8>) {
        put_byte_string(out, self.as_bytes());
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let bytes = input.byte_string()?;
        let text = core::str::from_utf8(bytes).map_err(|_| DecodeError::NotText)?;
        Ok(text.to_owned())
    }
}

impl<T: Compact> Compact for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let is_there = bool::decode(input)?;
        is_there.then(|| T::decode(input)).transpose()
    }
}

impl<T: Compact> Compact for Box<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        T::encode(self, out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        T::decode(input).map(Self::new)
    }
}

impl<T: Compact> Compact for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.len() as u64);
        for value in self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let count = input.count()?;
        decode_many(input, count)
    }
}

impl<A: Compact, B: Compact> Compact for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        Ok((A::decode(input)?, B::decode(input)?))
    }
}

macro_rules! compact_numbers {
    ($($name:ident)*) => {
        $(impl Compact for crate::$name {
            fn encode(&self, out: &mut Vec<u8>) {
                put_number(out, self.0);
            }

            fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
                input.number().map(Self)
            }
        })*
    };
}

macro_rules! compact_arrays {
    ($($name:ident)*) => {
        $(impl Compact for crate::$name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0);
            }

            fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
                input.array().map(Self)
            }
        })*
    };
}

compact_numbers!(
    Term LogIndex Zxid MemberId SessionId RequestId ConnEpoch Ticket MountId MapId LogTime WallTime
);
compact_arrays!(ClusterId Digest SecretHash);

/// Gives a struct the encodings of its fields, in the order named.
#[macro_export]
macro_rules! compact_struct {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::codec::Compact for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::codec::Compact::encode(&self.$field, out);)+
            }

            fn decode(
                input: &mut $crate::codec::Input<'_>,
            ) -> Result<Self, $crate::codec::DecodeError> {
                $(let $field = $crate::codec::Compact::decode(input)?;)+
                Ok(Self { $($field),+ })
            }
        }
    };
}

/// Gives an enum an encoding: a tag, then the variant's fields in the order named. Tags are on
/// disk: never change or reuse one. A tuple variant names its fields, too.
#[macro_export]
macro_rules! compact_enum {
    ($name:ident {
        $($tag:literal = $variant:ident
            $(($($place:ident),+))? $({ $($field:ident),+ $(,)? })?),+ $(,)?
    }) => {
        impl $crate::codec::Compact for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $(($($place),+))? $({ $($field),+ })? => {
                        out.push($tag);
                        $($($crate::codec::Compact::encode($place, out);)+)?
                        $($($crate::codec::Compact::encode($field, out);)+)?
                    })+
                }
            }

            fn decode(
                input: &mut $crate::codec::Input<'_>,
            ) -> Result<Self, $crate::codec::DecodeError> {
                match input.byte()? {
                    $($tag => {
                        $($(let $place = $crate::codec::Compact::decode(input)?;)+)?
                        $($(let $field = $crate::codec::Compact::decode(input)?;)+)?
                        Ok(Self::$variant $(($($place),+))? $({ $($field),+ })?)
                    })+
                    tag => Err($crate::codec::DecodeError::UnknownTag {
                        what: stringify!($name),
                        tag,
                    }),
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_their_shortest_form_and_no_other() {
        for (number, bytes) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (u64::from(u32::MAX), 5),
            (u64::MAX, 10),
        ] {
            let encoded = number.to_compact();
            assert_eq!(encoded.len(), bytes, "{number}");
            assert_eq!(u64::from_compact(&encoded), Ok(number));
        }
        assert_eq!(u64::from_compact(&[0x80, 0]), Err(DecodeError::BadNumber));
        let mut beyond = [0xff; 10];
        beyond[9] = 2;
        assert_eq!(u64::from_compact(&beyond), Err(DecodeError::BadNumber));
        assert_eq!(u64::from_compact(&[0x80]), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_length_beyond_the_input_allocates_nothing() {
        let mut bytes = u64::MAX.to_compact();
        bytes.extend([1, 2, 3]);
        assert_eq!(<Vec<u8>>::from_compact(&bytes), Err(DecodeError::Truncated));
        assert_eq!(
            <Vec<u64>>::from_compact(&bytes),
            Err(DecodeError::Truncated)
        );
    }

    #[test]
    fn what_is_left_behind_a_value_is_an_error() {
        let error = Err(DecodeError::Trailing { bytes: 1 });
        assert_eq!(bool::from_compact(&[1, 0]), error);
        assert_eq!(bool::from_compact(&[2]), Err(DecodeError::BadNumber));
    }
}
