//! What a policy says of itself.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::rejection::Rejection;

/// The code of a rejection of a configuration.
pub const BAD_CONFIGURATION: &str = "bad-configuration";

/// What a policy is and needs, read when it is chosen and by people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyDescription {
    name: &'static str,
    version: &'static str,
    summary: &'static str,
    needs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Value::is_null")]
    configuration: Value,
}

impl PolicyDescription {
    /// A policy that needs no column and takes no configuration.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            version,
            summary,
            needs: Vec::new(),
            configuration: Value::Null,
        }
    }

    /// A column that it can not do without, as `table.column`.
    #[must_use]
    pub fn needs(mut self, column: &'static str) -> Self {
        self.needs.push(column);
        self
    }

    /// What its configuration is: a JSON Schema.
    #[must_use]
    pub fn configured_by(mut self, schema: Value) -> Self {
        self.configuration = schema;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The description as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and JSON values always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A configuration from its JSON; the default where it is empty.
///
/// # Errors
///
/// A rejection `bad-configuration`, if it is not such JSON.
pub fn configuration<T: Default + DeserializeOwned>(bytes: &[u8]) -> Result<T, Rejection> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|error| Rejection::new(BAD_CONFIGURATION, error))
}

/// For a policy that takes no configuration.
///
/// # Errors
///
/// A rejection `bad-configuration`, if there is one.
pub fn no_configuration(bytes: &[u8]) -> Result<(), Rejection> {
    if bytes.is_empty() {
        Ok(())
    } else {
        Err(Rejection::new(
            BAD_CONFIGURATION,
            "this policy takes no configuration",
        ))
    }
}
