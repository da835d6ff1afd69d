//! The transaction's view, as the host's imports use it.

use folkmoot_core::plugin::{CallContext, Rejection, TreeError, TxnView};
use folkmoot_proto::client::Stat;
use folkmoot_proto::{LogTime, SessionId, Ticket, Zxid};

/// What a guest sees of a transaction. The kernel's is [`folkmoot_core::plugin::TxnView`]; tests of
/// the host bring one in memory.
///
/// The view is moved into the store of the instance that is called, and back out.
pub trait CallView: Send + 'static {
    /// In which transaction the call is.
    fn context(&self) -> CallContext;
    /// Whether the call has written anything.
    fn wrote(&self) -> bool;
    /// A node's value and stat.
    ///
    /// # Errors
    ///
    /// Why there is none.
    fn read(&self, path: &str) -> Result<(Vec<u8>, Stat), TreeError>;
    /// Creates a node, owned by a session where one is named, sequential where asked.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    fn create(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: Option<SessionId>,
        sequential: bool,
    ) -> Result<(Zxid, String), TreeError>;
    /// Sets a value; answers the version afterwards.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    fn set(&mut self, path: &str, data: Vec<u8>, expected: Option<u64>) -> Result<u64, TreeError>;
    /// Deletes a node without children.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    fn delete(&mut self, path: &str, expected: Option<u64>) -> Result<(), TreeError>;
    /// Names of children, sorted, behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// Why there are none.
    fn children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, TreeError>;
    /// Whether a session is open.
    fn session_is_open(&self, session: SessionId) -> bool;
    /// Asks to hear of a session's end; false if it is not open.
    fn follow(&mut self, session: SessionId) -> bool;
    /// Ends a wait of this mount; false if it is over already (rule R11).
    fn complete(&mut self, ticket: Ticket, outcome: Result<Vec<u8>, Rejection>) -> bool;
    /// Sets a timer, in place of one of that name.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    fn set_timer(&mut self, name: &str, due: LogTime, payload: Vec<u8>) -> Result<(), TreeError>;
    /// Takes a timer back; false if there is none of that name.
    fn cancel_timer(&mut self, name: &str) -> bool;
    /// 64 bits that depend on the transaction and on how often this was asked in it.
    fn random(&mut self) -> u64;
    /// A line for the operator's log.
    fn log(&mut self, message: &str);
}

impl CallView for TxnView {
    fn context(&self) -> CallContext {
        TxnView::context(self)
    }

    fn wrote(&self) -> bool {
        TxnView::wrote(self)
    }

    fn read(&self, path: &str) -> Result<(Vec<u8>, Stat), TreeError> {
        TxnView::read(self, path)
    }

    fn create(
        &mut self,
        path: &str,
        data: Vec<u8>,
        owner: Option<SessionId>,
        sequential: bool,
    ) -> Result<(Zxid, String), TreeError> {
        match owner {
            Some(owner) => TxnView::create_ephemeral(self, path, data, owner, sequential),
            None => TxnView::create(self, path, data, sequential),
        }
    }

    fn set(&mut self, path: &str, data: Vec<u8>, expected: Option<u64>) -> Result<u64, TreeError> {
        TxnView::set(self, path, data, expected)
    }

    fn delete(&mut self, path: &str, expected: Option<u64>) -> Result<(), TreeError> {
        TxnView::delete(self, path, expected)
    }

    fn children(
        &self,
        path: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, TreeError> {
        TxnView::children(self, path, after, limit)
    }

    fn session_is_open(&self, session: SessionId) -> bool {
        TxnView::session_is_open(self, session)
    }

    fn follow(&mut self, session: SessionId) -> bool {
        TxnView::follow(self, session)
    }

    fn complete(&mut self, ticket: Ticket, outcome: Result<Vec<u8>, Rejection>) -> bool {
        TxnView::complete(self, ticket, outcome)
    }

    fn set_timer(&mut self, name: &str, due: LogTime, payload: Vec<u8>) -> Result<(), TreeError> {
        TxnView::set_timer(self, name, due, payload)
    }

    fn cancel_timer(&mut self, name: &str) -> bool {
        TxnView::cancel_timer(self, name)
    }

    fn random(&mut self) -> u64 {
        TxnView::random(self)
    }

    fn log(&mut self, message: &str) {
        TxnView::log(self, message);
    }
}
