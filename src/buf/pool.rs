//! The buffers of a stream of messages. They are allocated when first used, and return to the pool wherever they
//! are dropped.
#![allow(unsafe_code, reason = "the traits of owned buffers promise that memory stays where it is")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::buf::{IoBuf, IoBufMut};
use crate::util::catch_panic;

/// The buffers of a stream. Memory is allocated when a buffer is first used.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Free>,
    size: usize,
}

#[derive(Debug)]
struct Free {
    buffers: Vec<Vec<u8>>,
    /// How many may still be allocated.
    unmade: usize,
    /// The stream, if it waits for a buffer.
    waiting: Option<Waker>,
}

impl Pool {
    /// Creates a pool of buffers with `size` bytes each.
    pub(crate) fn new(buffers: usize, size: usize) -> Arc<Self> {
        let free = Free { buffers: Vec::new(), unmade: buffers, waiting: None };
        Arc::new(Self { free: Mutex::new(free), size })
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing under this lock panics half-way or runs user code, but for cloning wakers.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes buffers until there are `want` in `taken`, or all are in use. It is ready once there is one.
    pub(crate) fn poll_take(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        taken: &mut Vec<PooledBuf>,
        want: usize,
    ) -> Poll<()> {
        if taken.len() >= want {
            return Poll::Ready(());
        }
        let mut free = self.lock();
        while taken.len() < want {
            let bytes = match free.buffers.pop() {
                Some(bytes) => bytes,
                None if free.unmade > 0 => {
                    free.unmade -= 1;
                    Vec::with_capacity(self.size)
                }
                None if !taken.is_empty() => break,
                None => {
                    let replaced = free.waiting.replace(cx.waker().clone());
                    drop(free);
                    drop(replaced);
                    return Poll::Pending;
                }
            };
            taken.push(PooledBuf { bytes, pool: Some(self.clone()) });
        }
        Poll::Ready(())
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut free = self.lock();
        free.buffers.push(bytes);
        let waiting = free.waiting.take();
        drop(free);
        if let Some(waker) = waiting {
            catch_panic::wake(waker);
        }
    }
}

/// A buffer that goes back to its pool when it is dropped, wherever that happens.
pub(crate) struct PooledBuf {
    pub(crate) bytes: Vec<u8>,
    /// `None` for no buffer at all.
    pool: Option<Arc<Pool>>,
}

impl PooledBuf {
    /// Creates a buffer without memory.
    pub(crate) fn none() -> Self {
        Self { bytes: Vec::new(), pool: None }
    }
}

impl AsMut<Vec<u8>> for PooledBuf {
    fn as_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

// SAFETY: std's `Vec` keeps its bytes on the heap, where they stay when the buffer is moved. Its capacity is
// allocated, and its length is initialized.
unsafe impl IoBuf for PooledBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes.len()
    }

    fn bytes_total(&self) -> usize {
        self.bytes.capacity()
    }
}

// SAFETY: std's `Vec` keeps its bytes on the heap, where they stay when the buffer is moved. `&mut self` borrows
// them exclusively.
unsafe impl IoBufMut for PooledBuf {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        if self.bytes.len() < pos {
            // SAFETY: by the contract of `IoBufMut::set_init`, `pos` bytes are initialized and within the capacity.
            unsafe { self.bytes.set_len(pos) };
        }
    }
}
