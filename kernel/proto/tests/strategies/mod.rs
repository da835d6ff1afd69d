//! Random values of everything that the log holds.

use folkmoot_proto::batch::{Batch, Completion, Origin, Txn};
use folkmoot_proto::effect::{Effect, MountEvent, WaitEndCause};
use folkmoot_proto::reply::{Outcome, Refusal, Reply, SubOutcome};
use folkmoot_proto::{
    ConnEpoch, Digest, LogTime, MemberId, MountId, PathError, RequestId, SecretHash, SessionId,
    Term, Ticket, WallTime, Zxid,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Numbers of every length.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(bits, shift)| bits >> shift)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zäß/.]{0,24}"
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn ticket() -> impl Strategy<Value = Ticket> {
    number().prop_map(Ticket)
}

fn session() -> impl Strategy<Value = SessionId> {
    number().prop_map(SessionId)
}

fn mount() -> impl Strategy<Value = MountId> {
    number().prop_map(MountId)
}

fn log_time() -> impl Strategy<Value = LogTime> {
    number().prop_map(LogTime)
}

fn node_effect() -> impl Strategy<Value = Effect> {
    let create = (
        text(),
        bytes(),
        option::of(session()),
        number(),
        option::of(number()),
    );
    prop_oneof![
        create.prop_map(|(path, data, owner, parent_cversion, parent_sequence)| {
            Effect::CreateNode {
                path,
                data,
                owner,
                parent_cversion,
                parent_sequence,
            }
        }),
        (text(), bytes(), number()).prop_map(|(path, data, version)| Effect::SetNode {
            path,
            data,
            version,
        }),
        (text(), number()).prop_map(|(path, parent_cversion)| Effect::DeleteNode {
            path,
            parent_cversion,
        }),
    ]
}

fn session_effect() -> impl Strategy<Value = Effect> {
    let open = (any::<[u8; 32]>(), any::<u32>(), number());
    let wait = (
        session(),
        number(),
        mount(),
        option::of(log_time()),
        bytes(),
    );
    prop_oneof![
        open.prop_map(|(secret, timeout_ms, member)| Effect::OpenSession {
            secret: SecretHash(secret),
            timeout_ms,
            member: MemberId(member),
        }),
        (session(), number(), number()).prop_map(|(session, epoch, member)| {
            Effect::AttachSession {
                session,
                epoch: ConnEpoch(epoch),
                member: MemberId(member),
            }
        }),
        (session(), any::<bool>())
            .prop_map(|(session, expired)| Effect::CloseSession { session, expired }),
        (session(), vec(ticket(), 0..5))
            .prop_map(|(session, tickets)| Effect::DropCompletions { session, tickets }),
        wait.prop_map(
            |(session, request, mount, deadline, memo)| Effect::BeginWait {
                session,
                request: RequestId(request),
                mount,
                deadline,
                memo,
            }
        ),
        ticket().prop_map(|ticket| Effect::EndWait { ticket }),
        (mount(), session()).prop_map(|(mount, session)| Effect::FollowSession { mount, session }),
    ]
}

fn mount_event() -> impl Strategy<Value = MountEvent> {
    let cause = prop_oneof![
        Just(WaitEndCause::Deadline),
        Just(WaitEndCause::SessionEnded),
        Just(WaitEndCause::Cancelled),
        Just(WaitEndCause::MountRemoved),
    ];
    prop_oneof![
        (session(), vec(text(), 0..4))
            .prop_map(|(session, removed)| MountEvent::SessionClosed { session, removed }),
        (ticket(), session(), cause, bytes()).prop_map(|(ticket, session, cause, memo)| {
            MountEvent::WaitEnded {
                ticket,
                session,
                cause,
                memo,
            }
        }),
        (text(), log_time(), bytes()).prop_map(|(name, due, payload)| MountEvent::Timer {
            name,
            due,
            payload
        }),
        Just(MountEvent::Resync),
    ]
}

fn mount_effect() -> impl Strategy<Value = Effect> {
    let put = (mount(), text(), digest(), bytes(), number());
    prop_oneof![
        (mount(), text(), log_time(), bytes()).prop_map(|(mount, name, due, payload)| {
            Effect::SetTimer {
                mount,
                name,
                due,
                payload,
            }
        }),
        (mount(), text()).prop_map(|(mount, name)| Effect::CancelTimer { mount, name }),
        (mount(), mount_event()).prop_map(|(mount, event)| Effect::QueueEvent { mount, event }),
        (mount(), any::<u32>()).prop_map(|(mount, count)| Effect::DequeueEvents { mount, count }),
        put.prop_map(|(mount, path, digest, config, version)| Effect::PutMount {
            mount,
            path,
            digest,
            config,
            version: Zxid(version),
        }),
        mount().prop_map(|mount| Effect::RemoveMount { mount }),
    ]
}

fn component_effect() -> impl Strategy<Value = Effect> {
    let chunk = (digest(), session(), any::<u32>(), any::<u32>(), bytes());
    prop_oneof![
        chunk.prop_map(|(digest, session, size, offset, data)| Effect::PutChunk {
            digest,
            session,
            size,
            offset,
            data,
        }),
        (digest(), text(), ticket()).prop_map(|(digest, name, ticket)| Effect::SealUpload {
            digest,
            name,
            ticket,
        }),
        digest().prop_map(|digest| Effect::DropUpload { digest }),
        (digest(), text()).prop_map(|(digest, description)| Effect::PutComponent {
            digest,
            description,
        }),
        digest().prop_map(|digest| Effect::RemoveComponent { digest }),
    ]
}

/// Any effect.
pub(crate) fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        node_effect(),
        session_effect(),
        mount_effect(),
        component_effect(),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let sub = prop_oneof![
        option::of(number()).prop_map(|sequence| SubOutcome::Created { sequence }),
        number().prop_map(|version| SubOutcome::Set { version }),
        Just(SubOutcome::Deleted),
        Just(SubOutcome::Checked),
    ];
    prop_oneof![
        option::of(number()).prop_map(|sequence| Outcome::Created { sequence }),
        number().prop_map(|version| Outcome::Set { version }),
        vec(sub, 0..6).prop_map(Outcome::Multi),
        bytes().prop_map(Outcome::Invoked),
        ticket().prop_map(Outcome::Waiting),
        proptest::sample::select(vec![
            Outcome::Deleted,
            Outcome::Checked,
            Outcome::Synced,
            Outcome::Cancelled,
            Outcome::NothingToCancel,
            Outcome::Acknowledged,
            Outcome::SessionClosed,
            Outcome::ChunkTaken,
            Outcome::Installed,
            Outcome::Mounted,
            Outcome::Unmounted,
            Outcome::ComponentRemoved,
            Outcome::GroupChanged,
        ]),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        text().prop_map(|path| Refusal::BadPath {
            path,
            error: PathError::EmptyComponent,
        }),
        text().prop_map(|path| Refusal::NoNode { path }),
        (text(), number(), number()).prop_map(|(path, expected, actual)| Refusal::BadVersion {
            path,
            expected,
            actual,
        }),
        (text(), number(), option::of(number())).prop_map(|(path, token, current)| {
            Refusal::GuardFailed {
                path,
                token: Zxid(token),
                current: current.map(Zxid),
            }
        }),
        (any::<u32>(), text(), text()).prop_map(|(index, reason, code)| Refusal::MultiRefused {
            index,
            reason,
            code,
        }),
        (text(), text(), vec((text(), text()), 0..3)).prop_map(|(code, message, details)| {
            Refusal::Rejected {
                code,
                message,
                details,
            }
        }),
        (any::<u32>(), any::<u32>())
            .prop_map(|(min_ms, max_ms)| Refusal::BadTimeout { min_ms, max_ms }),
        proptest::sample::select(vec![
            Refusal::OwnerNotOpen,
            Refusal::DeadlinePassed,
            Refusal::WaitCancelled,
            Refusal::MountRemoved,
            Refusal::SessionEnded,
        ]),
    ]
}

/// Any reply.
pub(crate) fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        2 => outcome().prop_map(Ok),
        1 => refusal().prop_map(Err),
    ]
}

/// Any transaction.
pub(crate) fn txn() -> impl Strategy<Value = Txn> {
    let origin = (session(), number(), number(), reply());
    let origin = origin.prop_map(|(session, request, acked_up_to, reply)| Origin {
        session,
        request: RequestId(request),
        acked_up_to: RequestId(acked_up_to),
        reply,
    });
    let completion = (ticket(), session(), number(), reply());
    let completion = completion.prop_map(|(ticket, session, request, reply)| Completion {
        ticket,
        session,
        request: RequestId(request),
        reply,
    });
    // Counts on both sides of what fits the head of a transaction.
    (
        option::of(origin),
        vec(effect(), 0..10),
        vec(completion, 0..18),
    )
        .prop_map(|(origin, effects, completions)| Txn {
            origin,
            effects,
            completions,
        })
}

/// Any batch.
pub(crate) fn batch() -> impl Strategy<Value = Batch> {
    let base = number().prop_map(|base| Zxid(base >> 1));
    let header = (number(), base, log_time(), number());
    (header, vec(txn(), 1..4)).prop_map(|((term, base_zxid, log_time, wall_time), txns)| Batch {
        term: Term(term),
        base_zxid,
        first_zxid: base_zxid.next(),
        log_time,
        wall_time: WallTime(wall_time),
        txns,
    })
}
