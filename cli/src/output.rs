//! Results on stdout, as text or as JSON.

use std::io::Write;

use folkmoot_client::{Change, ChangeKind, Stat};
use serde_json::{Value, json};

use crate::args::Format;
use crate::failure::{BROKEN_PIPE, Failure, REFUSED};

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// One result: the text for people, or the document for programs.
    pub(crate) fn print(self, text: &str, document: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.bytes(format!("{text}\n").as_bytes()),
            Format::Json => self.bytes(format!("{document}\n").as_bytes()),
        }
    }

    /// Bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(|error| match error.kind() {
                // `folkmoot ls / | head -1` is no mistake of anybody's.
                std::io::ErrorKind::BrokenPipe => Failure::new(BROKEN_PIPE, "stdout", ""),
                _ => Failure::new(REFUSED, "stdout", format!("can not write: {error}")),
            })
    }

    /// Rows under headings, or a list of documents.
    pub(crate) fn table(
        self,
        headings: &[&str],
        rows: &[Vec<String>],
        documents: &[Value],
    ) -> Result<(), Failure> {
        if self.format == Format::Json {
            return self.bytes(format!("{}\n", json!(documents)).as_bytes());
        }
        let mut table = comfy_table::Table::new();
        table
            .load_preset(comfy_table::presets::NOTHING)
            .set_header(headings);
        table.add_rows(rows);
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        self.bytes(format!("{}\n", lines.join("\n")).as_bytes())
    }
}

/// Notes for a person, on stderr.
pub(crate) fn note(text: impl std::fmt::Display) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A value: as text where it is UTF-8, else in hexadecimal digits.
pub(crate) fn value(data: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(data) {
        Ok(text) => ("data", text.to_owned()),
        Err(_) => (
            "data_hex",
            data.iter().map(|byte| format!("{byte:02x}")).collect(),
        ),
    }
}

pub(crate) fn stat_document(path: &str, stat: &Stat) -> Value {
    json!({
        "path": path,
        "czxid": stat.czxid,
        "mzxid": stat.mzxid,
        "pzxid": stat.pzxid,
        "ctime_ms": stat.ctime,
        "mtime_ms": stat.mtime,
        "version": stat.version,
        "cversion": stat.cversion,
        "ephemeral_owner": stat.ephemeral_owner,
        "num_children": stat.num_children,
        "data_length": stat.data_length,
    })
}

pub(crate) fn stat_text(stat: &Stat) -> String {
    let owner = stat
        .ephemeral_owner
        .map_or("none".to_owned(), |owner| owner.to_string());
    format!(
        "czxid            {}\nmzxid            {}\npzxid            {}\n\
         ctime_ms         {}\nmtime_ms         {}\nversion          {}\n\
         cversion         {}\nephemeral_owner  {owner}\nnum_children     {}\n\
         data_length      {}",
        stat.czxid,
        stat.mzxid,
        stat.pzxid,
        stat.ctime,
        stat.mtime,
        stat.version,
        stat.cversion,
        stat.num_children,
        stat.data_length,
    )
}

pub(crate) fn change_document(change: &Change, with_data: bool) -> Value {
    let mut document = json!({
        "path": change.path,
        "change": change_name(change.kind),
        "version": change.version,
    });
    if with_data && let Some(fields) = document.as_object_mut() {
        let (key, text) = value(&change.data);
        fields.insert(key.to_owned(), Value::String(text));
    }
    document
}

pub(crate) fn change_name(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Created => "created",
        ChangeKind::Set => "set",
        ChangeKind::Deleted => "deleted",
    }
}
