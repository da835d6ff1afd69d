//! The trait that a plugin implements.

use crate::context::Context;
use crate::description::Description;
use crate::event::Event;
use crate::operation::{Operation, Outcome};
use crate::rejection::Rejection;

/// Coordination semantics, such as a lock: mounted at a path, run inside the transaction of each
/// call.
///
/// The struct is the plugin's configuration. State is in the tree alone.
pub trait Recipe: Default + 'static {
    /// What the plugin is and does. The same at each call.
    fn describe() -> Description;

    /// Takes the mount's configuration: once for each instance, before anything else, and once when
    /// the mount is made. A plugin that has none refuses any.
    ///
    /// # Errors
    ///
    /// A rejection refuses the mount.
    fn configure(&mut self, configuration: &[u8]) -> Result<(), Rejection> {
        if configuration.is_empty() {
            Ok(())
        } else {
            Err(Rejection::new(
                "bad-configuration",
                "this plugin takes no configuration",
            ))
        }
    }

    /// Does what a client asks.
    ///
    /// # Errors
    ///
    /// A rejection: the client is told, and what the call wrote is undone.
    fn invoke(&self, cx: &mut Context, operation: Operation) -> Result<Outcome, Rejection>;

    /// Handles an event. Most plugins that neither follow sessions nor wait nor set timers hear
    /// none.
    ///
    /// # Errors
    ///
    /// An event can not be refused: an error is a plugin fault, what the call wrote is undone, and
    /// the event comes again later.
    fn on_event(&self, cx: &mut Context, event: Event) -> Result<(), Rejection> {
        let _ = (cx, event);
        Ok(())
    }

    /// Brings the tree below the mount from an older state version to that of
    /// [`Recipe::describe`]. A plugin that has had one layout only refuses.
    ///
    /// # Errors
    ///
    /// A rejection refuses the upgrade.
    fn migrate(&self, cx: &mut Context, from_state_version: u64) -> Result<(), Rejection> {
        let _ = cx;
        Err(Rejection::new(
            "no-migration",
            format_args!("there is no way from state version {from_state_version}"),
        ))
    }
}
