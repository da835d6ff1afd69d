//! A transaction while the leader executes it.

use folkmoot_proto::batch::{Completion, Origin, Txn};
use folkmoot_proto::codec::Compact;
use folkmoot_proto::effect::{Effect, MountEvent, WaitEndCause};
use folkmoot_proto::limits::{POLICY_CONFIG_BYTES_MAX, TXN_EFFECTS_MAX};
use folkmoot_proto::reply::{Refusal, Reply};
use folkmoot_proto::{LogTime, MountId, RequestId, SessionId};

use super::operations::{check_count, check_limit};
use crate::state::{Savepoint, Speculative, Stamp, View, Wait, reply_bytes};

/// Bytes of an effect or completion beside its texts and values: tag, lengths, numbers.
const ENVELOPE_BYTES: usize = 48;
/// Bytes of a wait's memo, so that all waits of a session can end in one transaction (rule R32).
const MEMO_BYTES_MAX: usize = 1024;
/// The same of the kernel's own, of whose end no plugin hears: a policy's configuration, and a group.
const KERNEL_MEMO_BYTES_MAX: usize = POLICY_CONFIG_BYTES_MAX + 1024;
/// What the end of a session writes for a wait: its end, and the event with the memo.
const WAIT_END_BYTES: u64 = 1024 + 2 * 48;

/// A transaction while it is executed. It owns the state and its overlay, so that a guest can own
/// it in turn. Each effect is applied at once, by the code that replicas use (rule R5), so that the
/// transaction sees its own writes.
#[derive(Debug)]
pub(in crate::execution) struct Draft {
    speculative: Box<Speculative>,
    stamp: Stamp,
    clock: LogTime,
    effects: Vec<Effect>,
    completions: Vec<Completion>,
    bytes: usize,
    overflowed: bool,
}

/// A moment of a draft to which it can be rolled back.
#[derive(Debug)]
pub(in crate::execution) struct Mark {
    savepoint: Savepoint,
    effects: usize,
    completions: usize,
    bytes: usize,
}

impl Draft {
    /// A transaction without effects at `stamp`, while the log clock shows `clock`.
    pub(in crate::execution) fn new(
        speculative: Box<Speculative>,
        stamp: Stamp,
        clock: LogTime,
    ) -> Self {
        Self {
            speculative,
            stamp,
            clock,
            effects: Vec::new(),
            completions: Vec::new(),
            bytes: 0,
            overflowed: false,
        }
    }

    /// What the transaction sees: everything before it, and its own effects.
    pub(in crate::execution) fn view(&self) -> &impl View {
        &*self.speculative
    }

    /// Where and when the transaction takes place.
    pub(in crate::execution) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// What the log clock shows while this is executed: not before the transaction's own time, which
    /// is that of its batch, and may be long ago where batches wait for the disk.
    pub(in crate::execution) fn clock(&self) -> LogTime {
        self.clock.max(self.stamp.log_time)
    }

    /// The effects and completions so far.
    pub(in crate::execution) fn written(&self) -> (&[Effect], &[Completion]) {
        (&self.effects, &self.completions)
    }

    /// How many effects and completions there are so far.
    pub(in crate::execution) fn len(&self) -> usize {
        self.effects.len() + self.completions.len()
    }

    /// A moment to roll back to.
    pub(in crate::execution) fn mark(&mut self) -> Mark {
        Mark {
            savepoint: self.speculative.savepoint(),
            effects: self.effects.len(),
            completions: self.completions.len(),
            bytes: self.bytes,
        }
    }

    /// Undoes everything since `mark`.
    pub(in crate::execution) fn roll_back(&mut self, mark: Mark) {
        self.speculative.rollback(mark.savepoint);
        self.effects.truncate(mark.effects);
        self.completions.truncate(mark.completions);
        self.bytes = mark.bytes;
        self.overflowed = false;
    }

    /// Whether something did not fit: then what the transaction did is not whole.
    pub(in crate::execution) fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Ends the transaction: the request takes its place, its reply is kept, waits get their
    /// outcomes. Answers the state, the transaction, and an upper bound of its bytes.
    pub(in crate::execution) fn finish(
        mut self,
        origin: Option<Origin>,
    ) -> (Box<Speculative>, Txn, usize) {
        let reply = origin
            .as_ref()
            .map_or(0, |origin| ENVELOPE_BYTES + reply_size(&origin.reply));
        let txn = Txn {
            origin,
            effects: self.effects,
            completions: self.completions,
        };
        let finished = self.speculative.finish_txn(self.stamp, &txn);
        assert!(finished.is_ok(), "{txn:?} was checked, and: {finished:?}");
        (self.speculative, txn, self.bytes + reply)
    }

    /// The state, of a transaction that did nothing.
    pub(in crate::execution) fn into_speculative(self) -> Box<Speculative> {
        assert!(
            self.effects.is_empty(),
            "effects are thrown away: {:?}",
            self.effects
        );
        self.speculative
    }

    /// Does something with each item, as far as it fits the transaction; the first is done or
    /// refused.
    pub(in crate::execution) fn as_far_as_fits<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut body: impl FnMut(&mut Self, T) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        for (done, item) in items.into_iter().enumerate() {
            let mark = self.mark();
            if let Err(refusal) = body(self, item) {
                self.roll_back(mark);
                return if done > 0 { Ok(()) } else { Err(refusal) };
            }
        }
        Ok(())
    }

    /// Adds an effect and applies it. Its preconditions were checked: an effect that can not be
    /// applied is a bug.
    pub(in crate::execution) fn effect(&mut self, effect: Effect) -> Result<(), Refusal> {
        self.grow(effect_bytes(&effect))?;
        let applied = self.speculative.apply_effect(self.stamp, &effect);
        assert!(applied.is_ok(), "{effect:?} was checked, and: {applied:?}");
        self.effects.push(effect);
        Ok(())
    }

    /// Whether the transaction has room for this reply to the request that it executes.
    pub(in crate::execution) fn check_reply(&self, reply: &Reply) -> Result<(), Refusal> {
        let limit = usize::try_from(self.view().limits().txn_bytes_max).unwrap_or(usize::MAX);
        let bytes = self.bytes + ENVELOPE_BYTES + reply_size(reply);
        check_count("bytes of a transaction with its reply", bytes, limit)
    }

    /// Adds the outcome of a wait, whose `EndWait` is among the effects.
    pub(in crate::execution) fn complete(
        &mut self,
        wait: &Wait,
        reply: Reply,
    ) -> Result<(), Refusal> {
        self.grow(ENVELOPE_BYTES + reply_size(&reply))?;
        self.effect(Effect::EndWait {
            ticket: wait.ticket,
        })?;
        self.completions.push(Completion {
            ticket: wait.ticket,
            session: wait.session,
            request: wait.request,
            reply,
        });
        Ok(())
    }

    /// Has a request wait, under the ticket of this transaction. A session's waits and the outcomes
    /// that it has not acknowledged have one cap, so that every wait has room for its outcome
    /// (rules R10, R32).
    pub(in crate::execution) fn begin_wait(
        &mut self,
        session: SessionId,
        request: RequestId,
        mount: MountId,
        deadline: Option<LogTime>,
        memo: Vec<u8>,
    ) -> Result<(), Refusal> {
        let memo_bytes_max = match mount {
            KERNEL_MOUNT => KERNEL_MEMO_BYTES_MAX,
            _ => MEMO_BYTES_MAX,
        };
        check_count("bytes of a wait's memo", memo.len(), memo_bytes_max)?;
        let limits = self.view().limits();
        let bytes_max = limits.session_reply_bytes_max;
        let ending_at_once = u64::from(limits.txn_bytes_max / 2) / WAIT_END_BYTES;
        let waits_max = u64::from(limits.session_waits_max).min(ending_at_once);
        if let Some(session) = self.view().session(session) {
            let waits = u64::from(session.waits) + u64::from(session.completions) + 1;
            check_limit("waits of a session", waits, waits_max)?;
            let what = "bytes of a session's unacknowledged completions";
            check_limit(what, session.completion_bytes, u64::from(bytes_max))?;
        }
        self.check_waits_of_mount(mount)?;
        self.effect(Effect::BeginWait {
            session,
            request,
            mount,
            deadline,
            memo,
        })
    }
}

impl Draft {
    /// Whether a mount may have one more wait: all of them end in the transaction that removes it.
    /// They are counted only where there are that many in all.
    fn check_waits_of_mount(&self, mount: MountId) -> Result<(), Refusal> {
        let ends_bytes = u64::from(self.view().limits().txn_bytes_max / 2);
        let end_bytes = 2 * ENVELOPE_BYTES + reply_size(&Err(Refusal::MountRemoved));
        let in_bytes = usize::try_from(ends_bytes).unwrap_or(usize::MAX) / end_bytes;
        let waits_max = in_bytes.min(TXN_EFFECTS_MAX / 2 - 1);
        if mount == KERNEL_MOUNT || self.view().counters().waits < waits_max as u64 {
            return Ok(());
        }
        let waits = self.view().waits_of_mount(mount).len() + 1;
        check_count("waits of a mount", waits, waits_max)
    }

    /// Puts an event at the end of a mount's queue; at the cap all of them become one `resync`
    /// (rule R12).
    pub(in crate::execution) fn queue_event(
        &mut self,
        mount: MountId,
        event: MountEvent,
    ) -> Result<(), Refusal> {
        let queued = self.view().event_queue(mount).count();
        if queued < u64::from(self.view().limits().mount_events_max) {
            return self.effect(Effect::QueueEvent { mount, event });
        }
        self.effect(Effect::DequeueEvents {
            mount,
            count: u32::try_from(queued).unwrap_or(u32::MAX),
        })?;
        self.effect(Effect::QueueEvent {
            mount,
            event: MountEvent::Resync,
        })
    }

    /// Ends a wait natively (rule R11): its client gets `refusal`, and its plugin hears of it.
    pub(in crate::execution) fn end_wait(
        &mut self,
        wait: &Wait,
        cause: WaitEndCause,
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        self.complete(wait, Err(refusal))?;
        self.tell_wait_ended(wait, cause)
    }

    /// Has the plugin hear that its wait was ended. The kernel's own waits have no plugin, and a
    /// removed mount hears nothing.
    pub(in crate::execution) fn tell_wait_ended(
        &mut self,
        wait: &Wait,
        cause: WaitEndCause,
    ) -> Result<(), Refusal> {
        if wait.mount == KERNEL_MOUNT || cause == WaitEndCause::MountRemoved {
            return Ok(());
        }
        self.queue_event(
            wait.mount,
            MountEvent::WaitEnded {
                ticket: wait.ticket,
                session: wait.session,
                cause,
                memo: wait.memo.clone(),
            },
        )
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let limit = usize::try_from(self.view().limits().txn_bytes_max).unwrap_or(usize::MAX);
        let fits = check_count("changes of a transaction", self.len() + 1, TXN_EFFECTS_MAX)
            .and_then(|()| check_count("bytes of a transaction", self.bytes + bytes, limit));
        self.overflowed |= fits.is_err();
        self.bytes += bytes;
        fits
    }
}

/// The mount of waits that the kernel itself completes.
pub(in crate::execution) const KERNEL_MOUNT: MountId = MountId::ZERO;

/// An upper bound of an effect's encoded bytes.
fn effect_bytes(effect: &Effect) -> usize {
    let variable = match effect {
        Effect::CreateNode { path, data, .. } | Effect::SetNode { path, data, .. } => {
            path.len() + data.len()
        }
        Effect::DeleteNode { path, .. } => path.len(),
        Effect::DropCompletions { tickets, .. } => tickets.len() * 9,
        Effect::BeginWait { memo, .. } => memo.len(),
        Effect::SetTimer { name, payload, .. } => name.len() + payload.len(),
        Effect::CancelTimer { name, .. } | Effect::SealUpload { name, .. } => name.len(),
        Effect::QueueEvent { event, .. } => event_bytes(event),
        Effect::PutMount { path, config, .. } => path.len() + config.len(),
        Effect::PutChunk { data, .. } => data.len(),
        Effect::PutComponent { description, .. } => description.len(),
        Effect::CreateMap { record, layout } => compact_bytes(record) + compact_bytes(layout),
        Effect::PutMap { record, .. } => compact_bytes(record),
        Effect::PutLedger { ledger, .. } => compact_bytes(ledger),
        Effect::PutPartition { record, .. } => compact_bytes(record),
        Effect::Assign { assignment, .. } => compact_bytes(assignment),
        Effect::SplitPartition { parts, .. } => compact_bytes(parts),
        _ => 0,
    };
    ENVELOPE_BYTES + variable
}

fn compact_bytes(value: &impl Compact) -> usize {
    value.to_compact().len()
}

fn event_bytes(event: &MountEvent) -> usize {
    match event {
        MountEvent::SessionClosed { removed, .. } => {
            removed.iter().map(|path| path.len() + 4).sum()
        }
        MountEvent::WaitEnded { memo, .. } => memo.len(),
        MountEvent::Timer { name, payload, .. } => name.len() + payload.len(),
        MountEvent::Resync => 0,
    }
}

/// An upper bound of a reply's encoded bytes.
fn reply_size(reply: &Reply) -> usize {
    usize::try_from(reply_bytes(reply)).unwrap_or(usize::MAX)
}
