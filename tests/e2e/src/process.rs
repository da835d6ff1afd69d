//! One process: what it writes, and how it ends.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::PATIENCE;

/// What a process wrote may be held open by one that it started; then it is read no longer.
const DRAIN: Duration = Duration::from_secs(2);

/// How a process ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command line.
    pub what: String,
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ran {
    /// Asserts that it ended with 0.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[must_use]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// The one document on standard output.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(document) => document,
            Err(error) => panic!("no JSON ({error}) from {self}"),
        }
    }

    /// Asserts that it failed with this exit code and this error, and said so: data on standard
    /// output would be taken for a result.
    ///
    /// # Panics
    ///
    /// If it did not.
    pub fn failed(&self, code: i32, name: &str, says: &str) {
        assert_eq!(self.code, Some(code), "{self}");
        let error = self.error();
        assert_eq!(error["error"], name, "{self}");
        assert_eq!(error["exit"], code, "{self}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(says), "{says:?} is not said by {self}");
        assert_eq!(self.stdout, "", "{self}");
    }

    /// The error that `--output json` puts on standard error.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn error(&self) -> Value {
        let mut documents = self.stderr.lines().filter_map(|line| {
            let document: Value = serde_json::from_str(line).ok()?;
            document.get("error").is_some().then_some(document)
        });
        match documents.next_back() {
            Some(error) => error,
            None => panic!("no error in JSON from {self}"),
        }
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}`, which ended with {:?}\n--- stdout\n{}--- stderr\n{}---",
            self.what, self.code, self.stdout, self.stderr
        )
    }
}

/// A process that runs beside the test. It is killed if it is dropped before its end.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Pipe>,
    stderr: Arc<Pipe>,
    ended: bool,
}

impl Process {
    /// Starts a command, its output taken.
    ///
    /// # Panics
    ///
    /// If it can not be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        Self::start_on(command, Stdio::null())
    }

    /// As [`Process::start`], and nothing is typed yet.
    #[must_use]
    pub fn start_waiting(command: &mut Command) -> Self {
        Self::start_on(command, Stdio::piped())
    }

    fn start_on(command: &mut Command, stdin: Stdio) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let what = words
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("`{what}` did not start: {error}"));
        let stdout = Pipe::read(child.stdout.take().expect("it was piped"));
        let stderr = Pipe::read(child.stderr.take().expect("it was piped"));
        Self {
            what,
            stdin: child.stdin.take(),
            child,
            stdout,
            stderr,
            ended: false,
        }
    }

    /// Types all that there is to type.
    ///
    /// # Panics
    ///
    /// If it does not listen.
    pub fn type_in(&mut self, text: &str) {
        let mut stdin = self.stdin.take().expect("it was started waiting");
        stdin.write_all(text.as_bytes()).expect("it listens");
    }

    /// Its number, to be found in `/proc`.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard output.
    ///
    /// # Panics
    ///
    /// If it does not come.
    pub fn line(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        self.wait_for(&self.stdout, what, is)
    }

    /// Waits for a line on standard error.
    ///
    /// # Panics
    ///
    /// If it does not come.
    pub fn note(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        self.wait_for(&self.stderr, what, is)
    }

    /// Waits for the first document on standard output of which `find` makes something.
    ///
    /// # Panics
    ///
    /// If it does not come.
    pub fn document<T>(&self, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        let found = |line: &str| find(&serde_json::from_str(line).ok()?);
        let line = self.line(what, |line| found(line).is_some());
        found(&line).expect("it was found in this line")
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    fn wait_for(&self, pipe: &Pipe, what: &str, is: impl Fn(&str) -> bool) -> String {
        pipe.wait_for(is).unwrap_or_else(|| {
            panic!(
                "no sign of {what} from `{}`\n--- stdout\n{}--- stderr\n{}---",
                self.what,
                self.stdout(),
                self.stderr()
            )
        })
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it ended before.
    pub fn signal(&mut self, signal: Signal) {
        assert!(!self.has_ended(), "`{}` has ended", self.what);
        // A process that was not waited for keeps its number, so nobody else can get the signal.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal)
            .unwrap_or_else(|error| panic!("no signal to `{}`: {error}", self.what));
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[must_use]
    pub fn end(mut self) -> Ran {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if Instant::now() < deadline => std::thread::sleep(pause),
                None => panic!(
                    "`{}` does not end\n--- stdout\n{}--- stderr\n{}---",
                    self.what,
                    self.stdout(),
                    self.stderr()
                ),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        self.ended = true;
        self.stdout.drain();
        self.stderr.drain();
        Ran {
            what: self.what.clone(),
            code: status.code(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// Kills it with -9.
    pub fn kill(mut self) -> Ran {
        self.signal(Signal::KILL);
        self.end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself; either way it is gone afterwards.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What comes through a pipe.
#[derive(Debug, Default)]
struct Pipe {
    read: Mutex<Text>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    whole: String,
    closed: bool,
}

impl Pipe {
    fn read(from: impl Read + Send + 'static) -> Arc<Self> {
        let pipe = Arc::new(Self::default());
        let to = Arc::clone(&pipe);
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from
                .read_until(b'\n', &mut line)
                .is_ok_and(|bytes| bytes > 0)
            {
                to.change(|text| text.whole += &String::from_utf8_lossy(&line));
                line.clear();
            }
            to.change(|text| text.closed = true);
        });
        pipe
    }

    fn change(&self, change: impl FnOnce(&mut Text)) {
        change(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn text(&self) -> String {
        let text = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        text.whole.clone()
    }

    /// The first line that is meant; none if the pipe is closed without it, or none comes.
    fn wait_for(&self, is: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // The last line may not be whole yet.
            let complete = match text.closed {
                true => text.whole.as_str(),
                false => text.whole.rsplit_once('\n').map_or("", |(lines, _)| lines),
            };
            if let Some(line) = complete.lines().find(|line| is(line)) {
                return Some(line.to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if text.closed || left.is_zero() {
                return None;
            }
            let waited = self.changed.wait_timeout(text, left);
            text = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the rest of what an ended process wrote.
    fn drain(&self) {
        let text = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = self
            .changed
            .wait_timeout_while(text, DRAIN, |text| !text.closed);
        drop(closed.unwrap_or_else(PoisonError::into_inner));
    }
}
