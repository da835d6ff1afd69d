//! What a rebalancer gives.

use std::borrow::Cow;

use super::input::Input;
use super::rows::{MemberRow, PartitionRow, Row};
use crate::table::{Table, TableError, table};

/// A target: what should change, and why. What it does not name stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    partitions: Vec<PartitionRow>,
    /// The members of all assignments, one behind the other.
    members: Vec<MemberRow>,
    /// Where each assignment's members end.
    ends: Vec<u32>,
    priorities: Vec<u32>,
    /// Rows of `reasons`.
    reasons_of: Vec<u32>,
    reasons: Vec<Cow<'static, str>>,
    unplaced: Vec<(PartitionRow, u32, u32)>,
    scores: Vec<Score>,
    /// Milliseconds after which the policy would like to be asked again; none for at the next
    /// change.
    pub again_ms: Option<u64>,
}

/// Where a partition should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// The partition.
    pub partition: PartitionRow,
    /// Its members; the first leads.
    pub members: &'a [MemberRow],
    /// What goes first: greater numbers.
    pub priority: u32,
    /// Why, in words for an operator.
    pub reason: &'a str,
}

/// A partition that has fewer replicas than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unplaced<'a> {
    /// The partition.
    pub partition: PartitionRow,
    /// How many replicas have no place.
    pub missing: u32,
    /// Why, in words for an operator.
    pub reason: &'a str,
}

/// What the policy optimises, before and after; smaller is better.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// In kebab-case.
    pub name: Cow<'static, str>,
    /// As things are.
    pub before: f64,
    /// As they will be.
    pub after: f64,
}

impl Plan {
    /// A plan that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Assigns a partition to members, of which the first leads. Greater priorities go first.
    pub fn assign(
        &mut self,
        partition: PartitionRow,
        members: &[MemberRow],
        priority: u32,
        reason: impl Into<Cow<'static, str>>,
    ) {
        let reason = self.reason(reason.into());
        self.partitions.push(partition);
        self.members.extend_from_slice(members);
        self.ends.push(row_count(self.members.len()));
        self.priorities.push(priority);
        self.reasons_of.push(reason);
    }

    /// Says that a partition has fewer replicas than it should.
    pub fn leave_unplaced(
        &mut self,
        partition: PartitionRow,
        missing: u32,
        reason: impl Into<Cow<'static, str>>,
    ) {
        let reason = self.reason(reason.into());
        self.unplaced.push((partition, missing, reason));
    }

    /// Tells what the policy optimises. A number that is not finite is left out.
    pub fn score(&mut self, name: impl Into<Cow<'static, str>>, before: f64, after: f64) {
        if before.is_finite() && after.is_finite() {
            self.scores.push(Score {
                name: name.into(),
                before,
                after,
            });
        }
    }

    /// What should change.
    pub fn assignments(&self) -> impl ExactSizeIterator<Item = Assignment<'_>> {
        self.partitions.iter().enumerate().map(|(row, partition)| {
            let end = |row: usize| self.ends.get(row).map_or(0, |end| *end as usize);
            let from = row.checked_sub(1).map_or(0, end);
            Assignment {
                partition: *partition,
                members: self.members.get(from..end(row)).unwrap_or_default(),
                priority: self.priorities.get(row).copied().unwrap_or_default(),
                reason: self.reason_text(self.reasons_of.get(row).copied()),
            }
        })
    }

    /// What has no place.
    pub fn unplaced(&self) -> impl ExactSizeIterator<Item = Unplaced<'_>> {
        self.unplaced
            .iter()
            .map(|(partition, missing, reason)| Unplaced {
                partition: *partition,
                missing: *missing,
                reason: self.reason_text(Some(*reason)),
            })
    }

    /// What the policy optimises.
    #[must_use]
    pub fn scores(&self) -> &[Score] {
        &self.scores
    }

    /// Whether nothing should change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// The tables `assign`, `unplaced`, `reasons`, `scores` and `again`.
    #[must_use]
    pub fn into_tables(self) -> Vec<Table> {
        let mut offsets = vec![0];
        offsets.extend(self.ends);
        let rows = |rows: Vec<PartitionRow>| rows.into_iter().map(|row| row.0).collect::<Vec<_>>();
        let assign = Table::new("assign", row_count(self.partitions.len()))
            .with("partition", rows(self.partitions))
            .with_offsets(
                "members",
                self.members.iter().map(|row| row.0).collect::<Vec<_>>(),
                offsets,
            )
            .with("priority", self.priorities)
            .with("reason", self.reasons_of);
        let unplaced = Table::new("unplaced", row_count(self.unplaced.len()))
            .with("partition", cells(&self.unplaced, |row| row.0.0))
            .with("missing", cells(&self.unplaced, |row| row.1))
            .with("reason", cells(&self.unplaced, |row| row.2));
        let reasons = Table::new("reasons", row_count(self.reasons.len()))
            .with("text", cells(&self.reasons, |text| text.to_string()));
        let scores = Table::new("scores", row_count(self.scores.len()))
            .with("name", cells(&self.scores, |score| score.name.to_string()))
            .with("before", cells(&self.scores, |score| score.before))
            .with("after", cells(&self.scores, |score| score.after));
        let mut tables = vec![assign, unplaced, reasons, scores];
        if let Some(after) = self.again_ms {
            tables.push(Table::new("again", 1).with("after", vec![after]));
        }
        tables
    }

    /// A plan from its tables, any of which may be left out.
    ///
    /// # Errors
    ///
    /// Columns that are missing or are not what they should be; rows that the input does not have.
    pub fn from_tables(tables: &[Table], input: &Input) -> Result<Self, TableError> {
        let mut plan = Self::new();
        if let Ok(reasons) = table(tables, "reasons") {
            let texts = reasons.column::<String>("text")?.iter();
            plan.reasons = texts.map(|text| Cow::Owned(text.clone())).collect();
        }
        if let Ok(assign) = table(tables, "assign") {
            plan.read_assign(assign, input)?;
        }
        if let Ok(unplaced) = table(tables, "unplaced") {
            let partitions = unplaced.rows_of("partition", partition_count(input), false)?;
            let missing = unplaced.column::<u32>("missing")?;
            let reasons = plan.reason_rows(unplaced)?;
            let rows = partitions.iter().zip(missing).zip(reasons);
            let rows = rows
                .map(|((partition, missing), reason)| (PartitionRow(*partition), *missing, reason));
            plan.unplaced = rows.collect();
        }
        if let Ok(scores) = table(tables, "scores") {
            let names = scores.column::<String>("name")?.iter();
            let numbers = scores.column("before")?.iter().zip(scores.column("after")?);
            for (name, (before, after)) in names.zip(numbers) {
                plan.score(name.clone(), *before, *after);
            }
        }
        if let Ok(again) = table(tables, "again") {
            plan.again_ms = again.column::<u64>("after")?.first().copied();
        }
        Ok(plan)
    }

    fn read_assign(&mut self, assign: &Table, input: &Input) -> Result<(), TableError> {
        let partitions = assign.rows_of("partition", partition_count(input), false)?;
        let members = assign.lists::<u32>("members")?;
        let priorities = assign.optional::<u32>("priority")?;
        self.reasons_of = self.reason_rows(assign)?;
        for (row, partition) in partitions.iter().enumerate() {
            let list = members.of(row);
            if list
                .iter()
                .any(|row| *row as usize >= input.members().len())
            {
                return Err(TableError::bad_value("assign", "members", row));
            }
            self.partitions.push(PartitionRow(*partition));
            self.members.extend(list.iter().map(|row| MemberRow(*row)));
            self.ends.push(row_count(self.members.len()));
        }
        let none = || vec![0; partitions.len()];
        self.priorities = priorities.map_or_else(none, <[u32]>::to_vec);
        Ok(())
    }

    /// The column `reason` of a table; without one, rows that are not there.
    fn reason_rows(&self, table: &Table) -> Result<Vec<u32>, TableError> {
        let rows = table.optional::<u32>("reason")?;
        let none = || vec![u32::MAX; table.len()];
        Ok(rows.map_or_else(none, <[u32]>::to_vec))
    }

    /// The row of a reason, which is most often one of the last.
    fn reason(&mut self, text: Cow<'static, str>) -> u32 {
        // Most often it is the very same text, which needs no comparison.
        let same = |known: &Cow<str>| core::ptr::eq::<str>(&**known, &*text) || *known == text;
        let known = self.reasons.iter().rposition(same);
        row_count(known.unwrap_or_else(|| {
            self.reasons.push(text);
            self.reasons.len() - 1
        }))
    }

    fn reason_text(&self, row: Option<u32>) -> &str {
        let reason = row.and_then(|row| self.reasons.get(row as usize));
        reason.map_or("", |reason| reason.as_ref())
    }
}

fn cells<R, C>(rows: &[R], cell: impl Fn(&R) -> C) -> Vec<C> {
    rows.iter().map(cell).collect()
}

fn partition_count(input: &Input) -> u32 {
    row_count(input.partitions().len())
}

fn row_count(count: usize) -> u32 {
    PartitionRow::at(count).0
}
