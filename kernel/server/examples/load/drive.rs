//! Sessions that keep a number of writes outstanding.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use folkmoot_proto::client::{ClientFrame, Operation, Request, ServerFrame};
use folkmoot_proto::{RequestId, frame};

use crate::support::client::{Client, Session};

/// Bytes of each value.
const VALUE_BYTES: usize = 128;

/// A load of writes.
pub(crate) struct Load {
    pub(crate) sessions: usize,
    pub(crate) outstanding: usize,
    pub(crate) duration: Duration,
}

/// What was measured.
pub(crate) struct Figures {
    micros: Vec<u64>,
    duration: Duration,
}

impl Figures {
    pub(crate) fn count(&self) -> usize {
        self.micros.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.micros.len() as f64 / self.duration.as_secs_f64()
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        let place = (self.micros.len() as f64 * quantile) as usize;
        let place = place.min(self.micros.len().saturating_sub(1));
        self.micros
            .get(place)
            .map_or(0.0, |micros| *micros as f64 / 1000.0)
    }
}

impl Load {
    pub(crate) async fn run(&self, endpoint: &quinn::Endpoint, address: SocketAddr) -> Figures {
        let mut sessions = Vec::new();
        for _ in 0..self.sessions {
            let client = Client::connect(endpoint, address).await;
            let mut session = client.session().await;
            let path = format!("/load-{}", session.id);
            session.create(&path, &[]).await;
            sessions.push((client, session, path));
        }
        let until = Instant::now() + self.duration;
        let running: Vec<_> = sessions
            .into_iter()
            .map(|(client, session, path)| {
                let writer = Writer {
                    _client: client,
                    session,
                    path,
                    sent: BTreeMap::new(),
                    micros: Vec::new(),
                };
                tokio::spawn(writer.run(self.outstanding, until))
            })
            .collect();
        let mut micros = Vec::new();
        for writer in running {
            micros.extend(writer.await.expect("the writer ends well"));
        }
        micros.sort_unstable();
        Figures {
            micros,
            duration: self.duration,
        }
    }
}

struct Writer {
    _client: Client,
    session: Session,
    path: String,
    sent: BTreeMap<RequestId, Instant>,
    micros: Vec<u64>,
}

impl Writer {
    async fn run(mut self, outstanding: usize, until: Instant) -> Vec<u64> {
        let mut frames = Vec::new();
        loop {
            if Instant::now() < until {
                while self.sent.len() < outstanding {
                    self.session.last = self.session.last.next();
                    self.encode(self.session.last, &mut frames);
                    self.sent.insert(self.session.last, Instant::now());
                }
            } else if self.sent.is_empty() {
                return self.micros;
            }
            if !frames.is_empty() {
                let stream = &mut self.session.frames.send;
                stream.write_all(&frames).await.expect("writable");
                frames.clear();
            }
            for frame in self.session.frames.server_frames().await {
                self.take(frame, &mut frames);
            }
        }
    }

    fn take(&mut self, frame: ServerFrame, frames: &mut Vec<u8>) {
        match frame {
            ServerFrame::Reply { id, reply, .. } => {
                assert!(reply.is_ok(), "{reply:?}");
                if let Some(begun) = self.sent.remove(&id) {
                    self.micros.push(begun.elapsed().as_micros() as u64);
                }
            }
            ServerFrame::Rewind { next: from } | ServerFrame::NotAdmitted { id: from, .. } => {
                for id in self.sent.keys().copied().filter(|id| *id >= from) {
                    self.encode(id, frames);
                }
            }
            other => panic!("not expected: {other:?}"),
        }
    }

    fn encode(&self, id: RequestId, frames: &mut Vec<u8>) {
        let first = self.sent.first_key_value().map_or(id, |(first, _)| *first);
        let request = ClientFrame::Request(Request {
            id,
            acked_up_to: RequestId(first.0 - 1),
            guards: Vec::new(),
            operation: Operation::Set {
                path: self.path.clone(),
                data: vec![7; VALUE_BYTES],
                expected: None,
            },
        });
        frame::encode(&request, frames).expect("encodes");
    }
}
