//! Folkmoot.
