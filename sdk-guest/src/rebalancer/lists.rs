//! A short list for each row.

use core::marker::PhantomData;

use super::rows::Row;

/// What a list has room for at first, if it is to have more.
const ROOM_MAX: usize = 8;

/// A list of values for each row of a table, all in one allocation: the lists of 100,000 partitions
/// are a member or three each.
#[derive(Clone, Debug)]
pub(super) struct Lists<R, T> {
    values: Vec<T>,
    spans: Vec<Span>,
    rows: PhantomData<fn(R)>,
}

/// Where a list is in the values.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: usize,
    len: u32,
    room: u32,
}

#[allow(
    clippy::indexing_slicing,
    reason = "rows are checked when the tables are read, and spans are within the values"
)]
impl<R: Row, T: Copy + Default> Lists<R, T> {
    /// Empty lists, one for each number of values that it will likely have.
    pub(super) fn with_room(lengths: impl ExactSizeIterator<Item = usize>) -> Self {
        let mut from = 0;
        let mut spans = Vec::with_capacity(lengths.len());
        for length in lengths {
            let room = length.min(ROOM_MAX);
            spans.push(Span {
                from,
                len: 0,
                room: room as u32,
            });
            from += room;
        }
        Self {
            values: vec![T::default(); from],
            spans,
            rows: PhantomData,
        }
    }

    /// Every row and its list.
    pub(super) fn iter(&self) -> impl Iterator<Item = (R, &[T])> {
        let rows = (0..self.spans.len()).map(R::at);
        rows.map(|row| (row, self.of(row)))
    }

    /// The list of a row.
    #[inline(always)]
    pub(super) fn of(&self, row: R) -> &[T] {
        let span = self.spans[row.place()];
        &self.values[span.from..span.from + span.len as usize]
    }

    #[inline(always)]
    pub(super) fn of_mut(&mut self, row: R) -> &mut [T] {
        let span = self.spans[row.place()];
        &mut self.values[span.from..span.from + span.len as usize]
    }

    #[inline(always)]
    pub(super) fn push(&mut self, row: R, value: T) {
        if self.spans[row.place()].len == self.spans[row.place()].room {
            self.make_room(row);
        }
        let span = &mut self.spans[row.place()];
        self.values[span.from + span.len as usize] = value;
        span.len += 1;
    }

    /// Takes the value at a place out; what is behind it moves up.
    pub(super) fn remove(&mut self, row: R, place: usize) {
        self.of_mut(row)[place..].rotate_left(1);
        self.spans[row.place()].len -= 1;
    }

    /// Moves a list that is full to the end, with twice the room.
    #[cold]
    fn make_room(&mut self, row: R) {
        let span = &mut self.spans[row.place()];
        let list = span.from..span.from + span.len as usize;
        span.from = self.values.len();
        span.room = (span.room * 2).max(2);
        let end = span.from + span.room as usize;
        self.values.extend_from_within(list);
        self.values.resize(end, T::default());
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::MemberRow;
    use super::*;

    #[test]
    fn lists_grow_beyond_their_room() {
        let mut lists: Lists<MemberRow, u32> = Lists::with_room([1, 0, 100].into_iter());
        for value in 0..20 {
            for row in 0..3 {
                lists.push(MemberRow(row), value);
            }
        }
        let all: Vec<u32> = (0..20).collect();
        assert!(lists.iter().all(|(_, list)| list == all));
        lists.remove(MemberRow(1), 18);
        lists.remove(MemberRow(1), 0);
        assert_eq!(lists.of(MemberRow(1)).len(), 18);
        assert_eq!(lists.of(MemberRow(1)).last(), Some(&19));
        assert_eq!(lists.of(MemberRow(0)), all);
    }
}
