//! What the store of an instance holds: the view of the call that runs, and what it has used.

use core::fmt;

use folkmoot_core::plugin::FaultKind;

use crate::limits::CallLimits;
use crate::meter::{Meter, Metered};
use crate::view::CallView;

/// The data of an instance's store.
pub(crate) struct CallState<V> {
    /// The transaction; none in `describe` and `configure`.
    view: Option<V>,
    write_bytes_max: usize,
    written_bytes: usize,
    pub(crate) meter: Meter,
}

/// Why the host ends a call. Wasmtime carries it out of the guest as the cause of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// More host calls than are granted.
    HostCalls { limit: u32 },
    /// More bytes written than are granted.
    Writes { limit: usize },
    /// A call to the kernel where there is no transaction.
    NoTransaction,
}

impl Stop {
    pub(crate) const fn kind(self) -> FaultKind {
        match self {
            Self::HostCalls { .. } => FaultKind::HostCalls,
            Self::Writes { .. } => FaultKind::TooLarge,
            Self::NoTransaction => FaultKind::Contract,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostCalls { limit } => write!(f, "more than {limit} host calls"),
            Self::Writes { limit } => write!(f, "more than {limit} bytes of writes"),
            Self::NoTransaction => {
                f.write_str("describe and configure may call nothing but the log")
            }
        }
    }
}

impl core::error::Error for Stop {}

impl<V: CallView> CallState<V> {
    pub(crate) fn new(limits: CallLimits) -> Self {
        Self {
            view: None,
            write_bytes_max: limits.write_bytes,
            written_bytes: 0,
            meter: Meter::new(limits.millis, limits.memory_bytes, limits.host_calls),
        }
    }

    /// Begins a call: what the last one has used is forgotten.
    pub(crate) fn begin(&mut self, view: Option<V>) {
        self.view = view;
        self.written_bytes = 0;
        self.meter.begin();
    }

    /// Ends a call, and gives the view back.
    pub(crate) fn end(&mut self) -> Option<V> {
        self.view.take()
    }

    /// Counts a host call and gives the transaction.
    pub(crate) fn enter(&mut self) -> Result<&mut V, Stop> {
        self.meter.count_host_call()?;
        self.view.as_mut().ok_or(Stop::NoTransaction)
    }

    /// As [`CallState::enter`], for one that writes so many bytes.
    pub(crate) fn enter_to_write(&mut self, bytes: usize) -> Result<&mut V, Stop> {
        self.written_bytes = self.written_bytes.saturating_add(bytes);
        if self.written_bytes > self.write_bytes_max {
            return Err(Stop::Writes {
                limit: self.write_bytes_max,
            });
        }
        self.enter()
    }

    /// A line for the operator's log.
    pub(crate) fn log(&mut self, message: String) -> Result<(), Stop> {
        let line = self.meter.take_line(message)?;
        match &mut self.view {
            Some(view) => view.log(line),
            None => tracing::info!(target: "folkmoot::plugin", "{line}"),
        }
        Ok(())
    }
}

impl<V: CallView> Metered for CallState<V> {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}
