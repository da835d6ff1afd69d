//! Who runs the recipe.

use crate::event::Event;
use crate::instance::Instance;
use crate::operation::Outcome;
use crate::recipe::Recipe;
use crate::rejection::Rejection;
use crate::testing::View;

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The recipe's `configure`.
    Configure,
    /// The recipe's `invoke`.
    Invoke {
        /// The operation.
        operation: String,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// The recipe's `on-event`.
    Event(Event),
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// `invoke` answered.
    Answered(Outcome),
    /// The configuration was taken, or the event handled.
    Done,
    /// The recipe said no.
    Rejected(Rejection),
    /// A plugin fault, in words.
    Fault(String),
}

/// Runs a recipe: natively, or as Wasm.
pub trait Runner {
    /// Makes one call. The view comes back in any case; the mount undoes what a rejected or faulty
    /// call wrote.
    fn call(&mut self, configuration: &[u8], call: Call, view: View) -> (View, CallOutcome);

    /// Throws the instance away, as the kernel may at any moment.
    fn discard(&mut self);
}

/// Runs a recipe natively.
#[derive(Debug)]
pub struct Native {
    make: fn() -> Instance,
    instance: Option<Instance>,
}

impl Native {
    /// Runs `R`.
    #[must_use]
    pub fn of<R: Recipe>() -> Self {
        Self {
            make: Instance::of::<R>,
            instance: None,
        }
    }
}

impl Runner for Native {
    fn call(&mut self, configuration: &[u8], call: Call, mut view: View) -> (View, CallOutcome) {
        let instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let mut instance = (self.make)();
                if let Err(rejection) = instance.configure(configuration) {
                    return (view, CallOutcome::Rejected(rejection));
                }
                instance
            }
        };
        let context = view.context();
        let outcome = match call {
            Call::Configure => CallOutcome::Done,
            Call::Invoke { operation, payload } => {
                match instance.invoke(&mut view, context, &operation, &payload) {
                    Ok(outcome) => CallOutcome::Answered(outcome),
                    Err(rejection) => CallOutcome::Rejected(rejection),
                }
            }
            Call::Event(event) => match instance.on_event(&mut view, context, event) {
                Ok(()) => CallOutcome::Done,
                Err(rejection) => CallOutcome::Fault(rejection.to_string()),
            },
        };
        self.instance = Some(instance);
        (view, outcome)
    }

    fn discard(&mut self) {
        self.instance = None;
    }
}
