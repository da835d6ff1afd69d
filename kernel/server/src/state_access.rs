//! How other threads read the state: they ask the execution thread, which answers in small pieces
//! between batches. No other thread touches the tree.

use folkmoot_core::execution::Execution;
use folkmoot_core::state::{Delta, Span, State, ViewId, ViewRecords};
use folkmoot_proto::LogIndex;
use folkmoot_proto::limits::CHUNK_BYTES_MAX;
use folkmoot_proto::record::{RecordChange, StateMeta};
use tokio::sync::oneshot;

use crate::execution::{ExecutionInput, ExecutionQueue};

/// What the execution thread is asked. A request whose asker is gone is served for nothing.
#[derive(Debug)]
pub(crate) enum StateRequest {
    /// What changed since the last delta was taken.
    TakeDelta(oneshot::Sender<Delta>),
    /// A consistent view of the whole state; none if too many are open.
    OpenView(oneshot::Sender<Option<(OpenViewId, StateMeta)>>),
    /// The view's next records, in key order; none left if it is empty; no answer if the view is
    /// gone with the machine that it was of.
    ReadView(OpenViewId, oneshot::Sender<Vec<RecordChange>>),
    /// The view is not needed any more.
    CloseView(OpenViewId),
}

/// Names an open view: a machine that replaced its own may have another view of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenViewId {
    view: ViewId,
    index: LogIndex,
}

impl StateRequest {
    /// Answers from the machine's state; on the execution thread.
    pub(crate) fn serve(self, execution: &mut Execution) {
        let state = execution.state_mut();
        match self {
            Self::TakeDelta(answer) => {
                // A delta that nobody takes would be lost to the next checkpoint.
                if !answer.is_closed() {
                    let _ = answer.send(state.take_delta());
                }
            }
            Self::OpenView(answer) => {
                let opened = state.open_view(Span::Everything).ok().and_then(|view| {
                    let meta = state.view_meta(view)?.clone();
                    let index = meta.index;
                    Some((OpenViewId { view, index }, meta))
                });
                if let Err(Some((id, _))) = answer.send(opened) {
                    state.close_view(id.view);
                }
            }
            Self::ReadView(id, answer) => {
                if id.is_open(state) {
                    let read = state.read_view(id.view, CHUNK_BYTES_MAX);
                    let _ = answer.send(records(read));
                }
            }
            Self::CloseView(id) => {
                if id.is_open(state) {
                    state.close_view(id.view);
                }
            }
        }
    }
}

impl OpenViewId {
    fn is_open(self, state: &State) -> bool {
        state
            .view_meta(self.view)
            .is_some_and(|meta| meta.index == self.index)
    }
}

fn records(read: ViewRecords) -> Vec<RecordChange> {
    let record = |(key, value)| RecordChange {
        key,
        value: Some(value),
    };
    read.records.into_iter().map(record).collect()
}

/// A view is gone: too many are open, or the state was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state's view is gone")]
pub(crate) struct ViewLost;

/// The way to the state; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct StateAccess(ExecutionQueue);

impl StateAccess {
    pub(crate) fn new(queue: ExecutionQueue) -> Self {
        Self(queue)
    }

    fn ask(&self, request: StateRequest) {
        self.0.send(vec![ExecutionInput::State(request)]);
    }

    /// Takes the delta; blocks. None if the member stops.
    pub(crate) fn take_delta(&self) -> Option<Delta> {
        let (answer, answered) = oneshot::channel();
        self.ask(StateRequest::TakeDelta(answer));
        answered.blocking_recv().ok()
    }

    /// Opens a view of the whole state.
    pub(crate) async fn open_view(&self) -> Result<OpenView, ViewLost> {
        let (answer, answered) = oneshot::channel();
        self.ask(StateRequest::OpenView(answer));
        let (id, meta) = answered.await.ok().flatten().ok_or(ViewLost)?;
        Ok(OpenView {
            access: self.clone(),
            id,
            meta,
        })
    }
}

/// An open view; closed when it is dropped.
#[derive(Debug)]
pub(crate) struct OpenView {
    access: StateAccess,
    id: OpenViewId,
    meta: StateMeta,
}

impl OpenView {
    /// Where the state stands in it.
    pub(crate) fn meta(&self) -> &StateMeta {
        &self.meta
    }

    /// The next records; none left if it is empty.
    pub(crate) async fn read(&mut self) -> Result<Vec<RecordChange>, ViewLost> {
        let (answer, answered) = oneshot::channel();
        self.access.ask(StateRequest::ReadView(self.id, answer));
        answered.await.map_err(|_| ViewLost)
    }
}

impl Drop for OpenView {
    fn drop(&mut self) {
        self.access.ask(StateRequest::CloseView(self.id));
    }
}
