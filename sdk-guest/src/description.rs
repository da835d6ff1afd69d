//! What a plugin says of itself.

use serde::Serialize;
use serde_json::Value;

/// What a plugin is and does, read at its installation and by people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    name: &'static str,
    version: &'static str,
    state_version: u64,
    operations: Vec<OperationDescription>,
}

/// What an operation takes and gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct OperationDescription {
    name: &'static str,
    summary: &'static str,
    #[serde(skip_serializing_if = "Value::is_null")]
    arguments: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    reply: Value,
    rejections: Vec<&'static str>,
    may_wait: bool,
}

impl Description {
    /// A plugin without operations, with state version 1.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            state_version: 1,
            operations: Vec::new(),
        }
    }

    /// Counts the layouts that the plugin's tree has had.
    #[must_use]
    pub const fn state_version(mut self, state_version: u64) -> Self {
        self.state_version = state_version;
        self
    }

    /// One operation more; what follows speaks of it.
    #[must_use]
    pub fn operation(mut self, name: &'static str, summary: &'static str) -> Self {
        self.operations.push(OperationDescription {
            name,
            summary,
            arguments: Value::Null,
            reply: Value::Null,
            rejections: Vec::new(),
            may_wait: false,
        });
        self
    }

    /// What the last operation takes: a JSON Schema.
    #[must_use]
    pub fn takes(mut self, schema: Value) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.arguments = schema;
        }
        self
    }

    /// What the last operation replies, at once or after a wait: a JSON Schema.
    #[must_use]
    pub fn replies(mut self, schema: Value) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.reply = schema;
        }
        self
    }

    /// A code with which the last operation may be rejected.
    #[must_use]
    pub fn rejects(mut self, code: &'static str) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.rejections.push(code);
        }
        self
    }

    /// The last operation may answer later.
    #[must_use]
    pub fn may_wait(mut self) -> Self {
        if let Some(operation) = self.operations.last_mut() {
            operation.may_wait = true;
        }
        self
    }

    /// The description as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and JSON values always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}
