//! The payload of a log entry: one batch of transactions (group commit), in a compact encoding.
//!
//! Transaction `i` has zxid `first_zxid + i`; log time and wall time are the batch's. Each
//! transaction can be decoded alone.
//!
//! | bytes | of a batch |
//! |---|---|
//! | 1 | [`FORMAT`] |
//! | numbers | term, base zxid, log time, wall time, count of transactions |
//! | byte strings | the transactions |
//!
//! | bytes | of a transaction |
//! |---|---|
//! | 1 | bit 0: it has an origin; bits 1–3: count of effects, 7 if a number follows; bits 4–7: count of completions, 15 if a number follows |
//! | numbers | those counts, if they follow |
//! | origin | session, request, request minus what it acknowledges, reply |
//! | effects | as their tags say |
//! | completions | ticket, session, request, reply |

use crate::codec::{Compact, DecodeError, Input, decode_many, put_byte_string, put_number};
use crate::effect::Effect;
use crate::reply::Reply;
use crate::{LogTime, RequestId, SessionId, Term, Ticket, WallTime, Zxid};

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The term in which it was executed (rule R3).
    pub term: Term,
    /// The last zxid of the state on which it was executed (rule R3).
    pub base_zxid: Zxid,
    /// The zxid of its first transaction: `base_zxid + 1`.
    pub first_zxid: Zxid,
    /// The log time of its transactions (rule R9).
    pub log_time: LogTime,
    /// The leader's wall time, for `ctime` and `mtime`.
    pub wall_time: WallTime,
    /// At least one.
    pub txns: Vec<Txn>,
}

/// One transaction: all of it takes effect at its zxid, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The request that it answers; none for the kernel's own (expiry, timers, events, attach).
    pub origin: Option<Origin>,
    /// What it changes.
    pub effects: Vec<Effect>,
    /// Waits that it ends, with their outcomes.
    pub completions: Vec<Completion>,
}

/// The request that a transaction answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The session.
    pub session: SessionId,
    /// The request; it takes its place in the session's order here.
    pub request: RequestId,
    /// The replies up to this one are dropped (rule R10).
    pub acked_up_to: RequestId,
    /// The answer given in place, a refusal too (rule R1).
    pub reply: Reply,
}

/// The outcome of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The wait.
    pub ticket: Ticket,
    /// The session that waits.
    pub session: SessionId,
    /// The request that waits.
    pub request: RequestId,
    /// The outcome.
    pub reply: Reply,
}

/// The version of the encoding, in front of each batch.
pub const FORMAT: u8 = 1;

/// The count of effects that says: a number follows.
const MANY_EFFECTS: u8 = 7;
/// The count of completions that says: a number follows.
const MANY_COMPLETIONS: u8 = 15;

/// What the transactions of a batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The term in which it is executed (rule R3).
    pub term: Term,
    /// The last zxid of the state on which it is executed (rule R3).
    pub base_zxid: Zxid,
    /// The log time of its transactions (rule R9).
    pub log_time: LogTime,
    /// The leader's wall time.
    pub wall_time: WallTime,
}

impl BatchHeader {
    /// The batch's bytes, of transactions that were encoded one by one.
    #[must_use]
    pub fn encode_with<T: AsRef<[u8]>>(&self, txns: &[T]) -> Vec<u8> {
        let bytes: usize = txns.iter().map(|txn| txn.as_ref().len() + 4).sum();
        let mut out = Vec::with_capacity(bytes + 48);
        out.push(FORMAT);
        self.term.encode(&mut out);
        self.base_zxid.encode(&mut out);
        self.log_time.encode(&mut out);
        self.wall_time.encode(&mut out);
        put_number(&mut out, txns.len() as u64);
        for txn in txns {
            put_byte_string(&mut out, txn.as_ref());
        }
        out
    }
}

impl Batch {
    /// What its transactions have in common.
    #[must_use]
    pub fn header(&self) -> BatchHeader {
        BatchHeader {
            term: self.term,
            base_zxid: self.base_zxid,
            log_time: self.log_time,
            wall_time: self.wall_time,
        }
    }

    /// The last zxid in it.
    #[must_use]
    pub fn last_zxid(&self) -> Zxid {
        Zxid(self.base_zxid.0 + self.txns.len() as u64)
    }

    /// Its bytes. `first_zxid` is not among them: it follows `base_zxid`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let txns: Vec<_> = self.txns.iter().map(Compact::to_compact).collect();
        self.header().encode_with(&txns)
    }

    /// A batch from its bytes.
    ///
    /// # Errors
    ///
    /// If they are not exactly what [`Batch::encode`] makes of a batch with transactions.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Input::new(bytes);
        match input.byte()? {
            FORMAT => {}
            tag => {
                let what = "batch";
                return Err(DecodeError::UnknownTag { what, tag });
            }
        }
        let term = Term::decode(&mut input)?;
        let base_zxid = Zxid::decode(&mut input)?;
        let log_time = LogTime::decode(&mut input)?;
        let wall_time = WallTime::decode(&mut input)?;
        let count = input.count()?;
        let room = u64::MAX - base_zxid.0;
        if count == 0 || count as u64 >= room {
            return Err(DecodeError::Contradiction {
                what: "the count of transactions",
            });
        }
        let mut txns = Vec::with_capacity(count.min(crate::limits::BATCH_TXNS_MAX));
        for _ in 0..count {
            txns.push(Txn::from_compact(input.byte_string()?)?);
        }
        input.finish()?;
        Ok(Self {
            term,
            base_zxid,
            first_zxid: base_zxid.next(),
            log_time,
            wall_time,
            txns,
        })
    }
}

impl Compact for Txn {
    fn encode(&self, out: &mut Vec<u8>) {
        let effects = short_count(self.effects.len(), MANY_EFFECTS);
        let completions = short_count(self.completions.len(), MANY_COMPLETIONS);
        out.push(u8::from(self.origin.is_some()) | effects << 1 | completions << 4);
        if effects == MANY_EFFECTS {
            put_number(out, self.effects.len() as u64);
        }
        if completions == MANY_COMPLETIONS {
            put_number(out, self.completions.len() as u64);
        }
        if let Some(origin) = &self.origin {
            origin.encode(out);
        }
        for effect in &self.effects {
            effect.encode(out);
        }
        for completion in &self.completions {
            completion.encode(out);
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let head = input.byte()?;
        let effects = long_count(input, head >> 1 & 7, MANY_EFFECTS)?;
        let completions = long_count(input, head >> 4, MANY_COMPLETIONS)?;
        let origin = (head & 1 == 1).then(|| Origin::decode(input)).transpose()?;
        Ok(Self {
            origin,
            effects: decode_many(input, effects)?,
            completions: decode_many(input, completions)?,
        })
    }
}

/// A count as the head has it.
fn short_count(count: usize, many: u8) -> u8 {
    u8::try_from(count).map_or(many, |count| count.min(many))
}

/// A count, from the head or the number that follows.
fn long_count(input: &mut Input<'_>, short: u8, many: u8) -> Result<usize, DecodeError> {
    if short < many {
        return Ok(usize::from(short));
    }
    match input.count()? {
        count if count < usize::from(many) => Err(DecodeError::BadNumber),
        count => Ok(count),
    }
}

impl Compact for Origin {
    fn encode(&self, out: &mut Vec<u8>) {
        self.session.encode(out);
        self.request.encode(out);
        put_number(out, self.request.0.wrapping_sub(self.acked_up_to.0));
        self.reply.encode(out);
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let session = SessionId::decode(input)?;
        let request = RequestId::decode(input)?;
        let acked_up_to = RequestId(request.0.wrapping_sub(input.number()?));
        Ok(Self {
            session,
            request,
            acked_up_to,
            reply: Reply::decode(input)?,
        })
    }
}

crate::compact_struct!(Completion {
    ticket,
    session,
    request,
    reply,
});
