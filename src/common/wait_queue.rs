//! A first-in, first-out queue. The first element lies in the queue itself: most queues never have a second, and allocate
//! nothing.

use std::collections::VecDeque;
use std::num::NonZeroU64;

/// Identifies a waiter of one queue.
pub(crate) type WaiterId = NonZeroU64;

/// How many ids a queue has given out.
#[derive(Debug, Default)]
pub(crate) struct WaiterIds(u64);

impl WaiterIds {
    pub(crate) fn next(&mut self) -> WaiterId {
        self.0 += 1;
        WaiterId::new(self.0).expect("as many are never given out")
    }
}

#[derive(Debug)]
pub(crate) struct WaitQueue<T> {
    first: Option<T>,
    /// Empty while there is no first. Its allocation is kept.
    #[expect(clippy::box_collection, reason = "one pointer in each of many sockets")]
    others: Option<Box<VecDeque<T>>>,
}

impl<T> Default for WaitQueue<T> {
    fn default() -> Self {
        Self { first: None, others: None }
    }
}

impl<T> WaitQueue<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    pub(crate) fn has_second(&self) -> bool {
        self.others.as_ref().is_some_and(|others| !others.is_empty())
    }

    pub(crate) fn push_back(&mut self, last: T) {
        if self.first.is_none() {
            self.first = Some(last);
        } else {
            self.others.get_or_insert_default().push_back(last);
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let next = self.others.as_mut().and_then(|others| others.pop_front());
        std::mem::replace(&mut self.first, next)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.others.iter().flat_map(|others| others.iter()))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(self.others.iter_mut().flat_map(|others| others.iter_mut()))
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<T> {
        match at.checked_sub(1) {
            None => self.pop_front(),
            Some(at) => self.others.as_mut()?.remove(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_leave_in_the_order_in_which_they_came() {
        let mut queue = WaitQueue::default();
        assert_eq!(queue.pop_front(), None);
        (0..5).for_each(|number| queue.push_back(number));
        assert_eq!(queue.remove(2), Some(2));
        assert_eq!(queue.remove(0), Some(0));
        assert_eq!(queue.remove(3), None);
        assert_eq!(queue.front(), Some(&1));
        assert!(queue.has_second());
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [1, 3, 4]);
        queue.iter_mut().for_each(|number| *number += 10);
        assert_eq!(std::iter::from_fn(|| queue.pop_front()).collect::<Vec<_>>(), [11, 13, 14]);
        assert!(queue.is_empty() && !queue.has_second());
    }
}
