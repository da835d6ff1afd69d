//! Recorded traces, as text.
//!
//! The first line is `length-ms N`. Each other line is a session, in the order of their openings:
//!
//! ```text
//! CLASS ZONE TIMEOUT-MS DIED-MS|- FIRST-MS INTERVAL-MS INTERVAL-MS …
//! ```
//!
//! Times count from the recording's beginning. One member received all, and led.

use core::fmt;
use core::str::{FromStr, SplitAsciiWhitespace};

use crate::trace::{Leaders, Session, Touch, Trace};

/// Reads a recording.
///
/// # Errors
///
/// The line that is not as it must be, and what it lacks.
pub fn read(name: &str, text: &str) -> Result<Trace, RecordingError> {
    let mut trace = Trace {
        name: name.to_owned(),
        length_ms: 0,
        zones: Vec::new(),
        sessions: Vec::new(),
        leaders: Leaders::default(),
    };
    for (line, words) in text.lines().enumerate() {
        let mut words = Words {
            line: line + 1,
            words: words.split_ascii_whitespace(),
        };
        if line == 0 {
            words.word("length-ms")?;
            trace.length_ms = words.number("length-ms")?;
        } else {
            trace.sessions.push(session(words)?);
        }
    }
    trace.sessions.sort_by_key(Session::opened_ms);
    let zones = trace.sessions.iter().map(|session| session.zone + 1).max();
    trace.zones = (0..zones.unwrap_or(0))
        .map(|zone| format!("zone-{zone}"))
        .collect();
    Ok(trace)
}

fn session(mut words: Words) -> Result<Session, RecordingError> {
    let class = words.word("CLASS")?.to_owned();
    let zone = words.number("ZONE")?;
    let timeout_ms = words.number("TIMEOUT-MS")?;
    let died = words.word("DIED-MS")?;
    let died_ms = match died {
        "-" => None,
        died => Some(died.parse().map_err(|_| words.error("DIED-MS"))?),
    };
    let mut arrived_ms = 0;
    let mut touches = Vec::new();
    while let Some(word) = words.words.next() {
        let interval_ms: u64 = word.parse().map_err(|_| words.error("INTERVAL-MS"))?;
        arrived_ms += interval_ms;
        touches.push(Touch {
            arrived_ms,
            known_ms: arrived_ms,
            member: 0,
        });
    }
    Ok(Session {
        class,
        zone,
        timeout_ms,
        died_ms,
        touches,
    })
}

struct Words<'a> {
    line: usize,
    words: SplitAsciiWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn word(&mut self, what: &'static str) -> Result<&'a str, RecordingError> {
        self.words.next().ok_or_else(|| self.error(what))
    }

    fn number<N: FromStr>(&mut self, what: &'static str) -> Result<N, RecordingError> {
        let word = self.word(what)?;
        word.parse().map_err(|_| self.error(what))
    }

    fn error(&self, what: &'static str) -> RecordingError {
        RecordingError {
            line: self.line,
            what,
        }
    }
}

/// A recording that can not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordingError {
    /// The line, from 1.
    pub line: usize,
    /// What is missing there, or is not what it must be.
    pub what: &'static str,
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, what } = self;
        write!(f, "line {line} of the recording has no valid {what}")
    }
}

impl core::error::Error for RecordingError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_read() {
        let text = "length-ms 9000\nweb 1 2000 5000 100 400 410\nbatch 0 2000 - 50\n";
        let trace = read("r", text).unwrap();
        assert_eq!((trace.length_ms, trace.zones.len()), (9_000, 2));
        let [batch, web] = &trace.sessions[..] else {
            panic!("{trace:?}")
        };
        assert_eq!((batch.died_ms, web.died_ms), (None, Some(5_000)));
        let arrived: Vec<u64> = web.touches.iter().map(|touch| touch.arrived_ms).collect();
        assert_eq!(arrived, [100, 500, 910]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |line, what| Err(RecordingError { line, what });
        let read = |text| read("r", text).map(|trace| trace.length_ms);
        assert_eq!(read("length-ms x"), wrong(1, "length-ms"));
        assert_eq!(read("length-ms 1\nweb 0 2000 soon"), wrong(2, "DIED-MS"));
        assert_eq!(read("length-ms 1\nweb 0"), wrong(2, "TIMEOUT-MS"));
        assert_eq!(read("length-ms 1\nweb 0 1 - 5 x"), wrong(2, "INTERVAL-MS"));
    }
}
