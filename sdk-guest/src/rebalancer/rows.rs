//! Rows of the tables as types, and what is kept for each of them.

use core::marker::PhantomData;
use core::ops::{Index, IndexMut};

/// A row of a table.
pub trait Row: Copy + Ord {
    /// The row at this place.
    fn at(place: usize) -> Self;

    /// Its place.
    fn place(self) -> usize;
}

macro_rules! row {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl Row for $name {
            #[inline]
            fn at(place: usize) -> Self {
                Self(u32::try_from(place).unwrap_or(u32::MAX))
            }

            #[inline]
            fn place(self) -> usize {
                self.0 as usize
            }
        }
    };
}

row!(
    /// A row of the table `members`.
    MemberRow
);
row!(
    /// A row of the table `partitions`.
    PartitionRow
);
row!(
    /// A zone: the first part of a topology path, in the order of names.
    ZoneRow
);

/// One value for each row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Each<R, T> {
    values: Vec<T>,
    rows: PhantomData<fn(R)>,
}

impl<R: Row, T> Each<R, T> {
    /// The values in the order of rows.
    #[must_use]
    pub fn of(values: Vec<T>) -> Self {
        Self {
            values,
            rows: PhantomData,
        }
    }

    /// The same value for each of so many rows.
    #[must_use]
    pub fn filled(rows: usize, value: T) -> Self
    where
        T: Clone,
    {
        Self::of(vec![value; rows])
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Every row and its value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (R, &T)> {
        self.values
            .iter()
            .enumerate()
            .map(|(place, value)| (R::at(place), value))
    }

    /// Every row.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = R> + use<R, T> {
        (0..self.values.len()).map(R::at)
    }

    /// One row more.
    pub fn push(&mut self, value: T) {
        self.values.push(value);
    }

    /// The values in the order of rows.
    #[must_use]
    pub fn values(&self) -> &[T] {
        &self.values
    }
}

#[allow(
    clippy::indexing_slicing,
    reason = "rows are checked when the tables are read"
)]
impl<R: Row, T> Index<R> for Each<R, T> {
    type Output = T;

    #[inline]
    fn index(&self, row: R) -> &T {
        &self.values[row.place()]
    }
}

#[allow(
    clippy::indexing_slicing,
    reason = "rows are checked when the tables are read"
)]
impl<R: Row, T> IndexMut<R> for Each<R, T> {
    #[inline]
    fn index_mut(&mut self, row: R) -> &mut T {
        &mut self.values[row.place()]
    }
}
