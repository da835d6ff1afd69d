//! Scripts: frames in, frames and outputs out, one literal list each.

mod maps;
mod model;

use folkmoot_proto::Ticket;
use folkmoot_proto::client::{Change, ChangeKind, ReadOutcome, ReadRefusal, Stat, WatchScope};
use folkmoot_proto::client::{Read, SnapshotNode, WatchEnd};
use folkmoot_proto::reply::{Outcome, Refusal, Reply};

use super::*;
use crate::error::WatchError;

const TIMEOUT_MS: u32 = 10_000;
const SESSION: SessionId = SessionId(7);

fn at(millis: u64) -> Tick {
    Tick(millis * 1000)
}

fn member(id: u64) -> MemberId {
    MemberId(id)
}

/// The machine and the frames it would send, with a member on the other side.
struct Script {
    core: SessionCore,
    now: Tick,
    member: MemberId,
}

impl Script {
    /// A session that is open, at member 1.
    fn open() -> Self {
        let core = SessionCore::new(SessionSecret([1; 32]), TIMEOUT_MS);
        let mut script = Self {
            core,
            now: at(0),
            member: member(1),
        };
        script.connect(1);
        assert_eq!(
            script.sent(),
            [ClientFrame::Open {
                secret: SessionSecret([1; 32]),
                timeout_ms: TIMEOUT_MS
            }]
        );
        script.hear(attached(1, 0, 7));
        script.outputs();
        script
    }

    fn connect(&mut self, to: u64) {
        self.member = member(to);
        self.core
            .handle_connected(self.now, vec![member(1), member(2), member(3)]);
    }

    /// The stream is lost, and another member attaches the session. Answers the watches that are
    /// asked for again.
    fn reconnect(&mut self, to: u64, last_seen: u64, last_id: u64) -> Vec<ClientFrame> {
        self.core.handle_disconnected();
        assert_eq!(self.sent(), []);
        self.connect(to);
        let resume = ClientFrame::Resume {
            session: SESSION,
            secret: SessionSecret([1; 32]),
            last_seen: Zxid(last_seen),
        };
        assert_eq!(self.sent(), [resume]);
        self.hear(attached(to, last_id, last_seen));
        self.resumed()
    }

    /// What is sent up to the word that all watches were asked for again, which comes before
    /// anything that has an answer (rule R28).
    fn resumed(&mut self) -> Vec<ClientFrame> {
        let mut sent = Vec::new();
        loop {
            match self.core.poll_frame(self.now) {
                Some(ClientFrame::WatchesResumed) => return sent,
                Some(frame @ (ClientFrame::Watch(_) | ClientFrame::WatchMap { .. })) => {
                    sent.push(frame)
                }
                other => panic!("before all watches were asked for: {other:?}"),
            }
        }
    }

    fn hear(&mut self, frame: ServerFrame) {
        let heard = self.core.handle_frame(self.now, self.member, frame);
        assert_eq!(heard, Ok(()));
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
        self.core.handle_timeout(self.now);
    }

    fn sent(&mut self) -> Vec<ClientFrame> {
        std::iter::from_fn(|| self.core.poll_frame(self.now)).collect()
    }

    /// The ids of the requests that are sent now; there is nothing else to send.
    fn sent_ids(&mut self) -> Vec<u64> {
        let id = |frame| match frame {
            ClientFrame::Request(request) => request.id.0,
            other => panic!("not a request: {other:?}"),
        };
        self.sent().into_iter().map(id).collect()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.core.poll_output()).collect()
    }

    fn answers(&mut self) -> Vec<(u64, Reply)> {
        let answer = |output| match output {
            Output::Answer(answer) => Some((answer.id.0, answer.reply)),
            _ => None,
        };
        self.outputs().into_iter().filter_map(answer).collect()
    }

    fn news(&mut self) -> Vec<WatchNews> {
        let news = |output| match output {
            Output::Watch(_, news) => Some(news),
            _ => None,
        };
        self.outputs().into_iter().filter_map(news).collect()
    }

    fn standings(&mut self) -> Vec<Standing> {
        let standing = |output| match output {
            Output::Lease(view) => Some(view.standing),
            _ => None,
        };
        self.outputs().into_iter().filter_map(standing).collect()
    }

    fn submit(&mut self) -> u64 {
        self.core.submit(Operation::Sync, Vec::new()).0
    }
}

fn attached(epoch: u64, last_id: u64, zxid: u64) -> ServerFrame {
    ServerFrame::Attached {
        session: SESSION,
        epoch: ConnEpoch(epoch),
        timeout_ms: TIMEOUT_MS,
        last_id: RequestId(last_id),
        zxid: Zxid(zxid),
    }
}

fn reply(id: u64, reply: Reply) -> ServerFrame {
    ServerFrame::Reply {
        id: RequestId(id),
        zxid: Zxid(100 + id),
        reply,
    }
}

fn completion(id: u64, ticket: u64, reply: Reply) -> ServerFrame {
    let (ticket, id) = (Ticket(ticket), RequestId(id));
    ServerFrame::Completion {
        ticket,
        id,
        zxid: Zxid(200),
        reply,
    }
}

const DONE: Reply = Ok(Outcome::Synced);

#[test]
fn requests_are_pipelined_and_answered_in_order() {
    let mut script = Script::open();
    for _ in 0..3 {
        script.submit();
    }
    assert_eq!(script.sent_ids(), [1, 2, 3]);
    script.hear(reply(1, DONE));
    script.hear(reply(2, Err(Refusal::SessionEnded)));
    assert_eq!(
        script.answers(),
        [(1, DONE), (2, Err(Refusal::SessionEnded))]
    );
    script.submit();
    let sent = script.sent();
    assert!(
        matches!(&sent[..], [ClientFrame::Request(request)]
            if request.id == RequestId(4) && request.acked_up_to == RequestId(2)),
        "{sent:?}"
    );
}

#[test]
fn everything_unanswered_is_sent_again_even_what_was_executed() {
    let mut script = Script::open();
    for _ in 0..4 {
        script.submit();
    }
    assert_eq!(script.sent_ids(), [1, 2, 3, 4]);
    script.hear(reply(1, DONE));
    script.reconnect(2, 101, 3);
    // 2 and 3 took their place: their kept replies are fetched (rule R10). 4 did not.
    assert_eq!(script.sent_ids(), [2, 3, 4]);
    for id in 2..=4 {
        script.hear(reply(id, DONE));
    }
    assert_eq!(
        script.answers(),
        [(1, DONE), (2, DONE), (3, DONE), (4, DONE)]
    );
}

#[test]
fn a_repeated_reply_is_no_second_answer() {
    let mut script = Script::open();
    script.submit();
    script.submit();
    script.sent();
    script.hear(reply(1, DONE));
    script.hear(ServerFrame::Rewind { next: RequestId(2) });
    assert_eq!(script.sent_ids(), [2]);
    script.hear(reply(1, DONE));
    script.hear(reply(2, DONE));
    script.hear(reply(2, DONE));
    assert_eq!(script.answers(), [(1, DONE), (2, DONE)]);
}

#[test]
fn a_reply_out_of_order_is_a_violation() {
    let mut script = Script::open();
    script.submit();
    script.submit();
    script.sent();
    let heard = script
        .core
        .handle_frame(script.now, script.member, reply(2, DONE));
    let expected = RequestId(1);
    assert_eq!(
        heard,
        Err(Violation::ReplyOutOfOrder {
            id: RequestId(2),
            expected
        })
    );
}

#[test]
fn a_reply_to_what_was_not_sent_is_a_violation() {
    let mut script = Script::open();
    script.submit();
    let heard = script
        .core
        .handle_frame(script.now, script.member, reply(1, DONE));
    assert!(
        matches!(heard, Err(Violation::ReplyOutOfOrder { .. })),
        "{heard:?}"
    );
}

#[test]
fn what_is_not_admitted_is_sent_again_from_there_after_a_pause() {
    let mut script = Script::open();
    for _ in 0..3 {
        script.submit();
    }
    script.sent();
    let refused = |id| ServerFrame::NotAdmitted {
        id: RequestId(id),
        reason: NotAdmitted::NoLeader,
    };
    script.hear(reply(1, DONE));
    script.hear(refused(2));
    script.hear(refused(3));
    assert_eq!(script.sent_ids(), [0; 0]);
    assert_eq!(script.core.poll_timeout(script.now), Some(at(10)));
    script.pass(10);
    assert_eq!(script.sent_ids(), [2, 3]);
    // The next pause is longer, until a reply comes.
    script.hear(refused(2));
    script.pass(10);
    assert_eq!(script.sent_ids(), [0; 0]);
    script.pass(10);
    assert_eq!(script.sent_ids(), [2, 3]);
}

#[test]
fn a_refusal_of_an_earlier_sending_does_not_unsend_a_later_one() {
    let mut script = Script::open();
    script.submit();
    script.submit();
    assert_eq!(script.sent_ids(), [1, 2]);
    let refused = |id| ServerFrame::NotAdmitted {
        id: RequestId(id),
        reason: NotAdmitted::Overloaded,
    };
    script.hear(refused(1));
    script.pass(10);
    assert_eq!(script.sent_ids(), [1, 2]);
    script.hear(reply(1, DONE));
    script.hear(refused(2));
    script.hear(reply(2, DONE));
    assert_eq!(script.answers(), [(1, DONE), (2, DONE)]);
    script.pass(10);
    assert_eq!(script.sent_ids(), [0; 0]);
}

#[test]
fn no_more_than_a_window_is_under_way() {
    let mut script = Script::open();
    for _ in 0..requests::WINDOW + 10 {
        script.submit();
    }
    assert_eq!(script.sent_ids().len() as u64, requests::WINDOW);
    script.hear(reply(1, DONE));
    assert_eq!(script.sent_ids(), [requests::WINDOW + 1]);
}

#[test]
fn a_wait_is_completed_later_and_over_a_reconnect() {
    let mut script = Script::open();
    script.submit();
    script.submit();
    script.sent();
    script.hear(reply(1, Ok(Outcome::Waiting(Ticket(101)))));
    script.hear(reply(2, DONE));
    let outputs = script.outputs();
    assert_eq!(outputs.first(), Some(&Output::Waits(RequestId(1))));
    assert!(
        matches!(&outputs[1..], [Output::Answer(answer)] if answer.id == RequestId(2)),
        "{outputs:?}"
    );
    script.reconnect(3, 102, 2);
    assert_eq!(script.sent_ids(), [0; 0]);
    let granted = Ok(Outcome::Invoked(b"granted".to_vec()));
    script.hear(completion(1, 101, granted.clone()));
    script.hear(completion(1, 101, granted.clone()));
    assert_eq!(script.answers(), [(1, granted)]);
}

#[test]
fn a_completion_may_come_before_the_repeated_answer() {
    let mut script = Script::open();
    script.submit();
    script.sent();
    script.reconnect(2, 7, 1);
    assert_eq!(script.sent_ids(), [1]);
    let granted = Ok(Outcome::Invoked(b"granted".to_vec()));
    script.hear(completion(1, 101, granted.clone()));
    assert_eq!(script.answers(), [(1, granted)]);
    script.hear(reply(1, Ok(Outcome::Waiting(Ticket(101)))));
    assert_eq!(script.answers(), []);
    script.submit();
    assert_eq!(script.sent_ids(), [2]);
}

#[test]
fn completions_are_acknowledged_together() {
    let mut script = Script::open();
    for id in 1..=2 {
        script.submit();
        script.sent();
        script.hear(reply(id, Ok(Outcome::Waiting(Ticket(100 + id)))));
    }
    for id in 1..=2 {
        script.hear(completion(id, 100 + id, DONE));
    }
    assert_eq!(script.sent(), []);
    script.pass(1000);
    let sent = script.sent();
    let tickets = vec![Ticket(101), Ticket(102)];
    assert!(
        matches!(&sent[..], [ClientFrame::Request(request)]
            if request.operation == Operation::AcknowledgeCompletions { tickets }),
        "{sent:?}"
    );
    script.outputs();
    // Nobody waits for its answer.
    script.hear(reply(3, Ok(Outcome::Acknowledged)));
    assert_eq!(script.answers(), []);
}

#[test]
fn a_wait_that_nobody_awaits_is_cancelled_and_one_that_is_over_is_not() {
    let mut script = Script::open();
    script.submit();
    script.sent();
    script.hear(reply(1, Ok(Outcome::Waiting(Ticket(101)))));
    script.core.abandon(RequestId(1));
    let sent = script.sent();
    assert!(
        matches!(&sent[..], [ClientFrame::Request(request)]
            if request.operation == Operation::CancelWait { request: RequestId(1) }),
        "{sent:?}"
    );
    script.hear(reply(2, Ok(Outcome::Cancelled)));
    script.hear(completion(1, 101, Err(Refusal::WaitCancelled)));
    assert_eq!(script.answers(), [(1, Err(Refusal::WaitCancelled))]);
    script.core.abandon(RequestId(1));
    assert_eq!(script.sent(), []);
}

#[test]
fn the_end_of_a_session_tells_what_had_been_sent() {
    let mut script = Script::open();
    script.submit();
    script.submit();
    script.sent();
    script.hear(reply(1, Ok(Outcome::Waiting(Ticket(101)))));
    script.core.handle_disconnected();
    script.submit();
    script.connect(2);
    script.sent();
    script.outputs();
    script.hear(ServerFrame::AttachRefused(AttachRefused::UnknownSession));
    let outputs = script.outputs();
    let unanswered = |id, sent| Output::Unanswered {
        id: RequestId(id),
        sent,
    };
    for expected in [
        unanswered(1, true),
        unanswered(2, true),
        unanswered(3, false),
    ] {
        assert!(
            outputs.contains(&expected),
            "{expected:?} is not in {outputs:?}"
        );
    }
    assert_eq!(outputs.last(), Some(&Output::Ended { expired: true }));
    assert!(script.core.is_over());
}

#[test]
fn a_read_follows_the_writes_before_it() {
    let mut script = Script::open();
    script.submit();
    let query = Query::Exists {
        path: "/a".to_owned(),
    };
    script.core.submit_read(false, query.clone());
    script.submit();
    let sent = script.sent();
    let read = Read {
        id: ReadId(1),
        after: RequestId(1),
        linearizable: false,
        query,
    };
    assert_eq!(sent.len(), 3);
    assert!(matches!(&sent[0], ClientFrame::Request(request) if request.id == RequestId(1)));
    assert_eq!(sent[1], ClientFrame::Read(read));
}

#[test]
fn a_listing_begins_again_on_a_new_stream() {
    let mut script = Script::open();
    let query = Query::Children {
        path: "/".to_owned(),
        after: None,
        limit: 0,
    };
    script.core.submit_read(false, query);
    script.sent();
    let page = |names: &[&str], more| ServerFrame::ReadReply {
        id: ReadId(1),
        zxid: Zxid(9),
        result: Ok(ReadOutcome::Children {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            stat: Stat::default(),
            more,
        }),
    };
    script.hear(page(&["a", "b"], true));
    assert_eq!(script.sent(), [ClientFrame::More { read: ReadId(1) }]);
    script.outputs();
    script.reconnect(2, 9, 0);
    assert!(matches!(&script.sent()[..], [ClientFrame::Read(_)]));
    script.hear(page(&["a"], true));
    script.sent();
    script.hear(page(&["c"], false));
    let outputs = script.outputs();
    let names = outputs.iter().find_map(|output| match output {
        Output::ReadAnswer(ReadAnswer {
            result: Ok(ReadOutcome::Children { names, .. }),
            ..
        }) => Some(names.clone()),
        _ => None,
    });
    assert_eq!(names, Some(vec!["a".to_owned(), "c".to_owned()]));
}

#[test]
fn a_read_without_a_leader_is_asked_again() {
    let mut script = Script::open();
    script.core.submit_read(
        true,
        Query::Get {
            path: "/".to_owned(),
        },
    );
    script.sent();
    let (id, zxid) = (ReadId(1), Zxid(9));
    script.hear(ServerFrame::ReadReply {
        id,
        zxid,
        result: Err(ReadRefusal::NoLeader),
    });
    assert_eq!(script.sent(), []);
    script.pass(10);
    assert!(matches!(&script.sent()[..], [ClientFrame::Read(_)]));
}

fn recursive(from: Option<u64>, with_snapshot: bool) -> Watch {
    Watch {
        id: WatchId::ZERO,
        path: "/".to_owned(),
        scope: WatchScope::Recursive,
        from: from.map(Zxid),
        with_snapshot,
        with_data: false,
    }
}

fn changes(path: &str) -> Vec<Change> {
    let path = path.to_owned();
    vec![Change {
        path,
        kind: ChangeKind::Created,
        data: Vec::new(),
        version: 0,
    }]
}

fn events(zxid: u64, path: &str, last: bool) -> ServerFrame {
    ServerFrame::Events {
        watch: WatchId(1),
        zxid: Zxid(zxid),
        changes: changes(path),
        last,
    }
}

#[test]
fn half_a_transaction_is_thrown_away_and_told_whole_later() {
    let mut script = Script::open();
    script.core.submit_watch(recursive(None, false));
    script.sent();
    script.hear(ServerFrame::Progress {
        watch: WatchId(1),
        zxid: Zxid(8),
    });
    script.hear(events(9, "/a", true));
    script.hear(events(12, "/b", false));
    script.news();
    let sent = script.reconnect(2, 9, 0);
    assert!(
        matches!(&sent[..], [ClientFrame::Watch(watch)] if watch.from == Some(Zxid(9))),
        "{sent:?}"
    );
    script.hear(events(12, "/b", false));
    script.hear(events(12, "/c", true));
    let whole = [changes("/b"), changes("/c")].concat();
    assert_eq!(
        script.news(),
        [WatchNews::Events {
            zxid: Zxid(12),
            changes: whole
        }]
    );
}

#[test]
fn a_progress_mark_is_where_a_quiet_watch_resumes() {
    let mut script = Script::open();
    script.core.submit_watch(recursive(None, false));
    script.sent();
    script.hear(ServerFrame::Progress {
        watch: WatchId(1),
        zxid: Zxid(8),
    });
    script.hear(ServerFrame::Progress {
        watch: WatchId(1),
        zxid: Zxid(5000),
    });
    let expected = [
        WatchNews::Began(Zxid(8)),
        WatchNews::Progress(Zxid(8)),
        WatchNews::Progress(Zxid(5000)),
    ];
    assert_eq!(script.news(), expected);
    let sent = script.reconnect(2, 5000, 0);
    assert!(matches!(&sent[..], [ClientFrame::Watch(watch)] if watch.from == Some(Zxid(5000))));
}

#[test]
fn an_event_that_was_told_is_not_told_again() {
    let mut script = Script::open();
    script.core.submit_watch(recursive(Some(8), false));
    script.sent();
    script.hear(events(9, "/a", true));
    let heard = script
        .core
        .handle_frame(script.now, script.member, events(9, "/a", true));
    assert!(
        matches!(heard, Err(Violation::EventOutOfOrder { .. })),
        "{heard:?}"
    );
}

#[test]
fn a_snapshot_that_was_cut_off_is_read_anew_and_a_whole_one_is_not() {
    let mut script = Script::open();
    script.core.submit_watch(recursive(None, true));
    script.sent();
    let node = |path: &str| SnapshotNode {
        path: path.to_owned(),
        data: Vec::new(),
        stat: Stat::default(),
    };
    let chunk = |zxid, path, last| ServerFrame::WatchSnapshot {
        watch: WatchId(1),
        zxid: Zxid(zxid),
        nodes: vec![node(path)],
        last,
    };
    script.hear(chunk(8, "/a", false));
    script.outputs();
    let sent = script.reconnect(2, 7, 0);
    assert!(matches!(&sent[..], [ClientFrame::Watch(watch)] if watch.with_snapshot));
    script.hear(chunk(20, "/b", true));
    let nodes = vec![node("/b")];
    let whole = WatchNews::Snapshot {
        zxid: Zxid(20),
        nodes,
    };
    assert_eq!(script.news(), [WatchNews::Began(Zxid(20)), whole]);
    let sent = script.reconnect(3, 20, 0);
    assert!(
        matches!(&sent[..], [ClientFrame::Watch(watch)]
            if !watch.with_snapshot && watch.from == Some(Zxid(20))),
        "{sent:?}"
    );
}

#[test]
fn every_member_is_asked_before_history_is_called_compacted() {
    let mut script = Script::open();
    script.core.submit_watch(recursive(Some(3), false));
    script.outputs();
    let ended = || ServerFrame::WatchEnded {
        watch: WatchId(1),
        reason: WatchEnd::Compacted { floor: Zxid(50) },
    };
    for next in 2..=3 {
        script.sent();
        script.hear(ended());
        let outputs = script.outputs();
        assert!(matches!(&outputs[..], [Output::Move { .. }]), "{outputs:?}");
        script.reconnect(next, 7, 0);
        script.outputs();
    }
    script.sent();
    script.hear(ended());
    assert_eq!(
        script.news(),
        [WatchNews::Over(WatchError::Compacted { floor: Zxid(50) })]
    );
}

#[test]
fn a_member_that_can_not_be_reached_does_not_hold_up_that_history_is_compacted() {
    let mut script = Script::open();
    script.core.submit_watch(recursive(Some(3), false));
    script.outputs();
    let ended = || ServerFrame::WatchEnded {
        watch: WatchId(1),
        reason: WatchEnd::Compacted { floor: Zxid(50) },
    };
    // Member 3 is down.
    for next in [2, 1] {
        script.sent();
        script.hear(ended());
        let outputs = script.outputs();
        assert!(matches!(&outputs[..], [Output::Move { .. }]), "{outputs:?}");
        script.reconnect(next, 7, 0);
        script.outputs();
    }
    script.sent();
    script.hear(ended());
    assert_eq!(
        script.outputs(),
        [Output::Watch(
            WatchId(1),
            WatchNews::Over(WatchError::Compacted { floor: Zxid(50) })
        )]
    );
}

#[test]
fn jeopardy_is_told_in_time_and_taken_back_by_an_acknowledgement() {
    let mut script = Script::open();
    script.core.handle_heartbeat_ack(at(1000), at(500), None);
    script.outputs();
    script.pass(7165);
    assert_eq!(script.standings(), []);
    script.pass(1);
    assert_eq!(script.standings(), [Standing::Jeopardy]);
    script.pass(500 + 9900 - 7166);
    assert_eq!(script.standings(), [Standing::LeaseOver]);
    // The cluster did not expire it after all.
    let now = script.now;
    script.core.handle_heartbeat_ack(now, now, None);
    assert_eq!(script.standings(), [Standing::Safe]);
}

/// The cluster may close the session at any time from here on.
#[test]
fn nothing_rests_on_a_session_that_is_being_closed() {
    let mut script = Script::open();
    script.outputs();
    script.core.submit(Operation::CloseSession, Vec::new());
    assert_eq!(script.standings(), [Standing::LeaseOver]);
    let now = script.now;
    script.core.handle_heartbeat_ack(now, now, None);
    script.pass(20_000);
    assert_eq!(script.standings(), []);
}

#[test]
fn a_member_that_does_not_acknowledge_heartbeats_is_left() {
    let mut script = Script::open();
    script.pass(3999);
    assert_eq!(script.outputs(), []);
    script.pass(1);
    let outputs = script.outputs();
    assert!(matches!(&outputs[..], [Output::Move { .. }]), "{outputs:?}");
}

#[test]
fn a_member_that_does_not_attach_the_session_is_left() {
    let mut script = Script::open();
    script.core.handle_disconnected();
    script.connect(2);
    script.outputs();
    script.pass(2500);
    let outputs = script.outputs();
    assert!(matches!(&outputs[..], [Output::Move { .. }]), "{outputs:?}");
}

#[test]
fn a_resumed_session_is_not_renewed_by_that_alone() {
    let mut script = Script::open();
    script.pass(8000);
    script.outputs();
    script.reconnect(2, 7, 0);
    script.pass(1900);
    let over = |output: &Output| matches!(output, Output::Lease(view) if view.standing == Standing::LeaseOver);
    assert!(script.outputs().iter().any(over));
}

#[test]
fn an_answer_to_another_session_is_a_violation() {
    let mut script = Script::open();
    script.core.handle_disconnected();
    script.connect(2);
    script.sent();
    let other = ServerFrame::Attached {
        session: SessionId(8),
        epoch: ConnEpoch(1),
        timeout_ms: TIMEOUT_MS,
        last_id: RequestId::ZERO,
        zxid: Zxid(8),
    };
    let heard = script.core.handle_frame(script.now, script.member, other);
    assert!(
        matches!(heard, Err(Violation::OtherSession { .. })),
        "{heard:?}"
    );
}
