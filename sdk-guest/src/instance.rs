//! A recipe without its type, as whoever runs one natively keeps it.

use crate::context::{CallContext, Context};
use crate::description::Description;
use crate::event::Event;
use crate::host::HostCalls;
use crate::operation::{Operation, Outcome};
use crate::recipe::Recipe;
use crate::rejection::Rejection;

/// A native instance of a recipe. Like a Wasm instance it may be thrown away at any moment.
pub struct Instance(Box<dyn AnyRecipe>);

impl Instance {
    /// A fresh instance, to be configured before its first call.
    #[must_use]
    pub fn of<R: Recipe>() -> Self {
        Self(Box::new(Typed(R::default())))
    }

    /// As the WIT's `describe`: JSON.
    #[must_use]
    pub fn describe(&self) -> String {
        self.0.describe().to_json()
    }

    /// As the WIT's `configure`.
    ///
    /// # Errors
    ///
    /// The recipe's rejection.
    pub fn configure(&mut self, configuration: &[u8]) -> Result<(), Rejection> {
        self.0.configure(configuration)
    }

    /// As the WIT's `invoke`.
    ///
    /// # Errors
    ///
    /// The recipe's rejection.
    pub fn invoke(
        &self,
        host: &mut dyn HostCalls,
        call: CallContext,
        operation: &str,
        payload: &[u8],
    ) -> Result<Outcome, Rejection> {
        self.0.invoke(
            &mut Context::new(host, call),
            Operation::new(operation, payload),
        )
    }

    /// As the WIT's `on-event`.
    ///
    /// # Errors
    ///
    /// What must count as a plugin fault.
    pub fn on_event(
        &self,
        host: &mut dyn HostCalls,
        call: CallContext,
        event: Event,
    ) -> Result<(), Rejection> {
        self.0.on_event(&mut Context::new(host, call), event)
    }

    /// As the WIT's `migrate`.
    ///
    /// # Errors
    ///
    /// The recipe's rejection.
    pub fn migrate(
        &self,
        host: &mut dyn HostCalls,
        call: CallContext,
        from_state_version: u64,
    ) -> Result<(), Rejection> {
        self.0
            .migrate(&mut Context::new(host, call), from_state_version)
    }
}

impl core::fmt::Debug for Instance {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

/// [`Recipe`] as an object.
trait AnyRecipe {
    fn describe(&self) -> Description;
    fn configure(&mut self, configuration: &[u8]) -> Result<(), Rejection>;
    fn invoke(&self, cx: &mut Context, operation: Operation) -> Result<Outcome, Rejection>;
    fn on_event(&self, cx: &mut Context, event: Event) -> Result<(), Rejection>;
    fn migrate(&self, cx: &mut Context, from_state_version: u64) -> Result<(), Rejection>;
}

struct Typed<R>(R);

impl<R: Recipe> AnyRecipe for Typed<R> {
    fn describe(&self) -> Description {
        R::describe()
    }

    fn configure(&mut self, configuration: &[u8]) -> Result<(), Rejection> {
        self.0.configure(configuration)
    }

    fn invoke(&self, cx: &mut Context, operation: Operation) -> Result<Outcome, Rejection> {
        self.0.invoke(cx, operation)
    }

    fn on_event(&self, cx: &mut Context, event: Event) -> Result<(), Rejection> {
        self.0.on_event(cx, event)
    }

    fn migrate(&self, cx: &mut Context, from_state_version: u64) -> Result<(), Rejection> {
        self.0.migrate(cx, from_state_version)
    }
}
