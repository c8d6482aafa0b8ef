//! Borrowing a file descriptor for a lifetime of its own.

use std::os::fd::{AsFd, BorrowedFd};

/// Types that give out a [`BorrowedFd<'a>`]: every `&'a T` where `T: AsFd`, and `BorrowedFd<'a>`.
pub trait BorrowFd<'a> {
    /// Borrow the file descriptor.
    fn borrow_fd(&self) -> BorrowedFd<'a>;
}

impl<'a, T: AsFd> BorrowFd<'a> for &'a T {
    fn borrow_fd(&self) -> BorrowedFd<'a> {
        (*self).as_fd()
    }
}

impl<'a> BorrowFd<'a> for BorrowedFd<'a> {
    fn borrow_fd(&self) -> BorrowedFd<'a> {
        *self
    }
}
