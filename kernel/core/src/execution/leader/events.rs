//! What mounts hear of what they did not do themselves (rule R12), and timers.

use folkmoot_proto::effect::{Effect, MountEvent};
use folkmoot_proto::reply::Refusal;
use folkmoot_proto::{MountId, Now, Tick};

use super::draft::Draft;
use crate::execution::Execution;
use crate::mutation::{self, Mutation};
use crate::plugin::{Discard, GuestCall, GuestOutcome, PluginRuntime};
use crate::state::{Mount, View};

/// Timers that become events in one transaction.
const DUE_TIMERS_PER_TXN: usize = 256;
/// Mounts that are looked at in search of one whose event can be handed over.
const MOUNTS_PER_STEP: usize = 64;

impl Execution {
    /// Hands the next event to its mount, if there is one that can be handed over now. The mounts
    /// take turns.
    pub(super) fn run_event(&mut self, now: Now, plugins: &mut dyn PluginRuntime) -> bool {
        if !self.may_execute() {
            return false;
        }
        let Some(mount) = self.next_event_mount(now, plugins) else {
            return false;
        };
        let Some(event) = self.speculative().first_event(mount.id).cloned() else {
            return false;
        };
        if let Some(leader) = &mut self.leader {
            leader.last_event = mount.id;
        }
        self.hand_over(now, &mount, event, plugins);
        true
    }

    pub(super) fn next_event_mount(&self, now: Now, plugins: &dyn PluginRuntime) -> Option<Mount> {
        for id in self.event_mounts() {
            let Some(mount) = self.speculative().mount(id).cloned() else {
                continue;
            };
            let due = self.leader.as_ref()?.health.event_due(id, now.tick);
            if due <= now.tick && plugins.is_ready(mount.digest) {
                return Some(mount);
            }
        }
        None
    }

    /// Mounts with events, from the one after the last that had a turn.
    fn event_mounts(&self) -> Vec<MountId> {
        let Some(leader) = &self.leader else {
            return Vec::new();
        };
        let view = self.speculative();
        if view.counters().mounts == 0 {
            return Vec::new();
        }
        let mut mounts = view.mounts_with_events(leader.last_event, MOUNTS_PER_STEP);
        let before = view.mounts_with_events(MountId::ZERO, MOUNTS_PER_STEP);
        mounts.extend(
            before
                .into_iter()
                .filter(|mount| *mount <= leader.last_event),
        );
        mounts
    }

    /// Runs the handler and takes the event from the queue in one transaction. After a fault
    /// nothing of the call is left, and the event stays and is handed over again later.
    fn hand_over(
        &mut self,
        now: Now,
        mount: &Mount,
        event: MountEvent,
        plugins: &mut dyn PluginRuntime,
    ) {
        let mut draft = self.begin(now);
        let mark = draft.mark();
        let call = GuestCall::OnEvent { event };
        let dequeued = draft.effect(Effect::DequeueEvents {
            mount: mount.id,
            count: 1,
        });
        let (mut draft, result, _) = self.call_guest(draft, mount, None, call, plugins);
        let faulted = dequeued.is_err() || !matches!(result, Ok(Ok(GuestOutcome::Done)));
        if let Some(leader) = &mut self.leader {
            let micros = plugins.last_call_micros();
            leader
                .health
                .event_handled(mount.id, now.tick, micros, faulted);
        }
        if !faulted {
            return self.commit(draft, None);
        }
        plugins.discard(Discard::Mount(mount.id));
        draft.roll_back(mark);
        if mutation::is_on(Mutation::FaultLosesEvent) {
            let count = 1;
            let mount = mount.id;
            let _ = draft.effect(Effect::DequeueEvents { mount, count });
            return self.commit(draft, None);
        }
        self.abandon(draft);
    }

    /// Turns timers that are due into events.
    pub(super) fn run_timers(&mut self, now: Now) {
        let time = self.txn_log_time(now);
        if !self.may_execute() || self.speculative().due_timers(time, 1).is_empty() {
            return;
        }
        self.kernel_txn(now, |draft| {
            let time = draft.stamp().log_time;
            let due = draft.view().due_timers(time, DUE_TIMERS_PER_TXN);
            let first = due.first().cloned();
            let fired = draft.as_far_as_fits(due, |draft, (mount, name)| fire(draft, mount, name));
            match (fired, first) {
                (Err(_), Some((mount, name))) => miss(draft, mount, name),
                _ => Ok(()),
            }
        });
    }

    /// When the next event can be handed over, if there is one.
    pub(super) fn next_event_due(&self, now: Tick) -> Option<Tick> {
        let leader = self.leader.as_ref()?;
        let due = |mount: MountId| {
            let ready_at = leader.health.event_due(mount, now);
            let digest = self.speculative().mount(mount)?.digest;
            (!self.not_ready.contains(&digest)).then_some(ready_at)
        };
        self.event_mounts().into_iter().filter_map(due).min()
    }
}

fn fire(draft: &mut Draft, mount: MountId, name: String) -> Result<(), Refusal> {
    let Some(timer) = draft.view().timer(mount, &name).cloned() else {
        return Ok(());
    };
    draft.effect(Effect::CancelTimer {
        mount,
        name: name.clone(),
    })?;
    let event = MountEvent::Timer {
        name,
        due: timer.due,
        payload: timer.payload,
    };
    draft.queue_event(mount, event)
}

/// A timer that fits no transaction as an event: its mount hears that it missed something.
fn miss(draft: &mut Draft, mount: MountId, name: String) -> Result<(), Refusal> {
    draft.effect(Effect::CancelTimer { mount, name })?;
    draft.queue_event(mount, MountEvent::Resync)
}
