//! What one turn of execution sends, encoded and sorted by stream: one write for each.

use std::collections::HashMap;

use folkmoot_core::execution::{ConnectionId, StreamId};
use folkmoot_proto::MemberId;
use folkmoot_proto::client::{ControlReply, ServerFrame};
use folkmoot_proto::frame;
use folkmoot_proto::peer::ExecutionMessage;

use crate::network::ConsensusInput;

/// What a turn sends.
#[derive(Debug, Default)]
pub(crate) struct TurnOutput {
    /// For session streams, each once.
    pub(crate) streams: Vec<StreamOutput>,
    /// Where in `streams` a stream is.
    places: HashMap<StreamId, usize>,
    /// For control streams, in order; none is every connection.
    pub(crate) controls: Vec<(Option<ConnectionId>, Vec<u8>)>,
    /// For peers, in order.
    pub(crate) peers: Vec<(MemberId, ExecutionMessage)>,
    /// For consensus, in order.
    pub(crate) consensus: Vec<ConsensusInput>,
    /// The machine was replaced: every session stream ends, clients attach again.
    pub(crate) replaced: bool,
}

/// Frames for one session's stream.
#[derive(Debug)]
pub(crate) struct StreamOutput {
    pub(crate) stream: StreamId,
    pub(crate) frames: Vec<u8>,
    /// The stream ends after them.
    pub(crate) close: bool,
}

impl TurnOutput {
    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
            && self.controls.is_empty()
            && self.peers.is_empty()
            && self.consensus.is_empty()
            && !self.replaced
    }

    pub(crate) fn send_on_stream(&mut self, stream: StreamId, frame: &ServerFrame) {
        let output = self.stream(stream);
        if let Err(error) = frame::encode(frame, &mut output.frames) {
            // The machine keeps replies and pages below the limit, so this is a defect; the
            // session's client finds its stream closed and resumes.
            tracing::error!(stream = stream.0, %error, "a frame can not be sent");
            output.close = true;
        }
    }

    pub(crate) fn close_stream(&mut self, stream: StreamId) {
        self.stream(stream).close = true;
    }

    pub(crate) fn send_on_control(
        &mut self,
        connection: Option<ConnectionId>,
        reply: &ControlReply,
    ) {
        let mut frames = Vec::new();
        match frame::encode(reply, &mut frames) {
            Ok(()) => self.controls.push((connection, frames)),
            Err(error) => tracing::error!(%error, "a control frame can not be sent"),
        }
    }

    fn stream(&mut self, stream: StreamId) -> &mut StreamOutput {
        let place = *self.places.entry(stream).or_insert_with(|| {
            self.streams.push(StreamOutput {
                stream,
                frames: Vec::new(),
                close: false,
            });
            self.streams.len() - 1
        });
        let Some(output) = self.streams.get_mut(place) else {
            unreachable!("place {place} was given when the stream was pushed");
        };
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closing(reason: &str) -> ServerFrame {
        ServerFrame::Closing {
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn frames_of_one_stream_are_one_write_in_order() {
        let mut output = TurnOutput::default();
        output.send_on_stream(StreamId(1), &closing("a"));
        output.send_on_stream(StreamId(2), &closing("b"));
        output.send_on_stream(StreamId(1), &closing("c"));
        output.close_stream(StreamId(1));
        let mut expected = Vec::new();
        frame::encode(&closing("a"), &mut expected).expect("encodes");
        frame::encode(&closing("c"), &mut expected).expect("encodes");
        assert_eq!(output.streams.len(), 2);
        assert_eq!(output.streams[0].frames, expected);
        assert!(output.streams[0].close);
        assert!(!output.streams[1].close);
    }
}
