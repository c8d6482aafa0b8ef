//! Traits of owned buffers for targets on which tokio-uring cannot be compiled.
//!
//! Names, signatures and behavior are those of tokio-uring 0.5, so that one program compiles with either. The tests below run on
//! both. One method, [`BoundedBufMut::put_slice`], has no default here: the trait is safe to implement, and a default would
//! have to trust its pointer.
#![allow(unsafe_code, reason = "buffers seen as pointers, as tokio-uring's traits have them")]

use std::io;
use std::ops::{Bound, Deref, DerefMut, Range, RangeBounds, RangeFull};
use std::slice;

/// The result of a call that takes a buffer, and the buffer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{BufResult, UnixSeqpacket};
///
/// let (a, _b) = UnixSeqpacket::pair()?;
/// let (sent, buffer): BufResult<usize, Vec<u8>> = a.send_owned(b"message".to_vec()).await;
/// assert_eq!((sent?, buffer.len()), (7, 7));
/// # Ok(()) }
/// ```
pub type BufResult<T, B> = (io::Result<T>, B);

/// A buffer that a call can own while it reads from it.
///
/// # Safety
/// While the buffer lives, `stable_ptr` returns the same address, also after the buffer has moved. From there on `bytes_total`
/// bytes are valid for reads, and the first `bytes_init` of them are initialized.
///
/// ```
/// use tokio_seqpacket::buf::IoBuf;
///
/// let buffer = Vec::<u8>::with_capacity(64);
/// assert_eq!((buffer.bytes_init(), buffer.bytes_total() >= 64), (0, true));
/// ```
pub unsafe trait IoBuf: Unpin + 'static {
    /// Returns where the buffer's memory begins.
    fn stable_ptr(&self) -> *const u8;
    /// Returns how many bytes are initialized.
    fn bytes_init(&self) -> usize;
    /// Returns how many bytes the buffer has room for.
    fn bytes_total(&self) -> usize;
}

/// A buffer that a call can own while it writes to it.
///
/// # Safety
/// `stable_mut_ptr` returns the address that [`IoBuf::stable_ptr`] returns, and `bytes_total` bytes are valid for writes there.
///
/// ```
/// use tokio_seqpacket::buf::{IoBuf, IoBufMut};
///
/// let mut buffer = vec![1_u8, 2, 3];
/// assert_eq!(buffer.stable_mut_ptr().cast_const(), buffer.stable_ptr());
/// ```
pub unsafe trait IoBufMut: IoBuf {
    /// Returns where the buffer's memory begins.
    fn stable_mut_ptr(&mut self) -> *mut u8;
    /// Notes that at least `pos` bytes are initialized. A buffer with more keeps them.
    ///
    /// # Safety
    /// The first `pos` bytes have been written.
    unsafe fn set_init(&mut self, pos: usize);
}

/// A buffer, or a [`Slice`] of one.
///
/// ```
/// use tokio_seqpacket::buf::BoundedBuf;
///
/// let slice = b"of this a part".to_vec().slice(8..);
/// assert_eq!(&slice[..], b"a part");
/// assert_eq!(slice.slice(2..).into_inner(), b"of this a part");
/// ```
pub trait BoundedBuf: Unpin + 'static {
    /// The buffer itself.
    type Buf: IoBuf;
    /// How the part of the buffer is written down.
    type Bounds: RangeBounds<usize>;

    /// Returns a part of this one.
    ///
    /// # Panics
    /// Panics if the range is not within this one, or begins beyond the initialized bytes.
    fn slice(self, range: impl RangeBounds<usize>) -> Slice<Self::Buf>;
    /// Returns all of it as a slice.
    fn slice_full(self) -> Slice<Self::Buf>;
    /// Returns the buffer.
    fn get_buf(&self) -> &Self::Buf;
    /// Returns which part of the buffer this is.
    fn bounds(&self) -> Self::Bounds;
    /// Makes such a part of a buffer again.
    ///
    /// # Panics
    /// Panics if the bounds of a slice do not fit the buffer.
    fn from_buf_bounds(buf: Self::Buf, bounds: Self::Bounds) -> Self;
    /// Returns where the part begins.
    fn stable_ptr(&self) -> *const u8;
    /// Returns how many bytes of the part are initialized.
    fn bytes_init(&self) -> usize;
    /// Returns how many bytes the part has room for.
    fn bytes_total(&self) -> usize;
}

/// A buffer to write to, or a [`Slice`] of one.
///
/// ```
/// use tokio_seqpacket::buf::{BoundedBuf, BoundedBufMut};
///
/// let mut slice = b"a .... part".to_vec().slice(2..6);
/// slice.put_slice(b"tiny");
/// assert_eq!(slice.into_inner(), b"a tiny part");
/// ```
pub trait BoundedBufMut: BoundedBuf<Buf = Self::BufMut> {
    /// The buffer itself.
    type BufMut: IoBufMut;

    /// Returns where the part begins.
    fn stable_mut_ptr(&mut self) -> *mut u8;
    /// Notes that at least `pos` bytes of the part are initialized.
    ///
    /// # Safety
    /// The first `pos` bytes of the part have been written.
    unsafe fn set_init(&mut self, pos: usize);
    /// Copies bytes to the start of the part.
    ///
    /// # Panics
    /// Panics if the part has no room for all of them.
    fn put_slice(&mut self, src: &[u8]);
}

/// Part of a buffer, which it owns: from [`BoundedBuf::slice`].
///
/// Dereferences to those bytes of the part that are initialized.
///
/// ```
/// use tokio_seqpacket::buf::BoundedBuf;
///
/// let slice = b"of this a part".to_vec().slice(3..7);
/// assert_eq!((slice.begin(), slice.end(), &slice[..]), (3, 7, &b"this"[..]));
/// ```
pub struct Slice<T> {
    buf: T,
    range: Range<usize>,
}

impl<T> Slice<T> {
    /// Returns the index of its first byte in the buffer.
    pub fn begin(&self) -> usize {
        self.range.start
    }

    /// Returns the index behind its last byte in the buffer.
    pub fn end(&self) -> usize {
        self.range.end
    }

    /// Returns the buffer.
    pub fn get_ref(&self) -> &T {
        &self.buf
    }

    /// Returns the buffer, to change it.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.buf
    }

    /// Returns the buffer, and gives up the bounds.
    pub fn into_inner(self) -> T {
        self.buf
    }
}

fn initialized<T: IoBuf>(buf: &T) -> &[u8] {
    // SAFETY: so many bytes are initialized there, by the contract of `IoBuf`, and the borrow keeps them as they are.
    unsafe { slice::from_raw_parts(buf.stable_ptr(), buf.bytes_init()) }
}

impl<T: IoBuf> Deref for Slice<T> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = initialized(&self.buf);
        &bytes[self.range.start..self.range.end.min(bytes.len())]
    }
}

impl<T: IoBufMut> DerefMut for Slice<T> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes are initialized and writable there, by the contract of `IoBufMut`, and the borrow is exclusive.
        let bytes = unsafe {
            let len = self.buf.bytes_init();
            slice::from_raw_parts_mut(self.buf.stable_mut_ptr(), len)
        };
        let end = self.range.end.min(bytes.len());
        &mut bytes[self.range.start..end]
    }
}

/// Returns a range of what lies at `within`, in the terms of the whole.
fn within(within: Range<usize>, range: &impl RangeBounds<usize>) -> Range<usize> {
    let at = |from: usize, by: usize| within.start.checked_add(from)?.checked_add(by);
    let begin = match range.start_bound() {
        Bound::Included(&from) => at(from, 0),
        Bound::Excluded(&before) => at(before, 1),
        Bound::Unbounded => Some(within.start),
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => at(last, 1),
        Bound::Excluded(&end) => at(end, 0),
        Bound::Unbounded => Some(within.end),
    };
    let (begin, end) = begin.zip(end).expect("the range does not fit into memory");
    assert!(begin <= within.end && end <= within.end, "the range exceeds the buffer");
    begin..end
}

/// Copies bytes to the start of a range of the buffer.
fn put<T: IoBufMut>(buf: &mut T, range: Range<usize>, src: &[u8]) {
    let (begin, end) = (range.start, range.end.min(buf.bytes_total()));
    assert!(begin <= buf.bytes_init(), "the buffer has become shorter");
    let room = end.saturating_sub(begin);
    assert!(src.len() <= room, "{} bytes do not fit into {room}", src.len());
    // SAFETY: `bytes_total` bytes are valid for writes (contract of `IoBufMut`), and those to write are among them by the second
    // assertion. What is in front of them is initialized by the first. The exclusive borrow keeps `src` apart from them.
    unsafe {
        buf.stable_mut_ptr().add(begin).copy_from_nonoverlapping(src.as_ptr(), src.len());
        buf.set_init(begin + src.len());
    }
}

impl<T: IoBuf> BoundedBuf for T {
    type Buf = Self;
    type Bounds = RangeFull;

    fn slice(self, range: impl RangeBounds<usize>) -> Slice<Self> {
        let range = within(0..IoBuf::bytes_total(&self), &range);
        assert!(range.start < IoBuf::bytes_total(&self), "the range begins at the buffer's end");
        Slice::from_buf_bounds(self, range)
    }

    fn slice_full(self) -> Slice<Self> {
        let range = 0..IoBuf::bytes_total(&self);
        Slice { buf: self, range }
    }

    fn get_buf(&self) -> &Self {
        self
    }

    fn bounds(&self) -> RangeFull {
        ..
    }

    fn from_buf_bounds(buf: Self, _: RangeFull) -> Self {
        buf
    }

    fn stable_ptr(&self) -> *const u8 {
        IoBuf::stable_ptr(self)
    }

    fn bytes_init(&self) -> usize {
        IoBuf::bytes_init(self)
    }

    fn bytes_total(&self) -> usize {
        IoBuf::bytes_total(self)
    }
}

impl<T: IoBufMut> BoundedBufMut for T {
    type BufMut = Self;

    fn stable_mut_ptr(&mut self) -> *mut u8 {
        IoBufMut::stable_mut_ptr(self)
    }

    unsafe fn set_init(&mut self, pos: usize) {
        // SAFETY: this function has the same contract.
        unsafe { IoBufMut::set_init(self, pos) }
    }

    fn put_slice(&mut self, src: &[u8]) {
        let range = 0..IoBuf::bytes_total(self);
        put(self, range, src);
    }
}

impl<T: IoBuf> BoundedBuf for Slice<T> {
    type Buf = T;
    type Bounds = Range<usize>;

    fn slice(self, range: impl RangeBounds<usize>) -> Self {
        let range = within(self.range, &range);
        Self::from_buf_bounds(self.buf, range)
    }

    fn slice_full(self) -> Self {
        self
    }

    fn get_buf(&self) -> &T {
        &self.buf
    }

    fn bounds(&self) -> Range<usize> {
        self.range.clone()
    }

    fn from_buf_bounds(buf: T, range: Range<usize>) -> Self {
        assert!(range.start <= buf.bytes_init(), "the range begins beyond the initialized bytes");
        assert!(range.end <= buf.bytes_total(), "the range exceeds the buffer");
        Self { buf, range }
    }

    fn stable_ptr(&self) -> *const u8 {
        initialized(&self.buf)[self.range.start..].as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }

    fn bytes_total(&self) -> usize {
        self.range.end - self.range.start
    }
}

impl<T: IoBufMut> BoundedBufMut for Slice<T> {
    type BufMut = T;

    fn stable_mut_ptr(&mut self) -> *mut u8 {
        assert!(self.range.start <= self.buf.bytes_init(), "the buffer has become shorter");
        self.buf.stable_mut_ptr().wrapping_add(self.range.start)
    }

    unsafe fn set_init(&mut self, pos: usize) {
        assert!(self.range.start <= self.buf.bytes_init(), "the buffer has become shorter");
        // SAFETY: the bytes in front of the slice are initialized by the assertion above, and the first `pos` of the slice have
        // been written, by this function's contract.
        unsafe { self.buf.set_init(self.range.start + pos) }
    }

    fn put_slice(&mut self, src: &[u8]) {
        put(&mut self.buf, self.range.clone(), src);
    }
}

/// Implements [`IoBuf`] for a type whose first `len` bytes are initialized, of as many as `$total` returns. Each use says why the
/// memory stays where it is while the buffer is not changed.
macro_rules! io_buf {
    ($buffer:ty, $total:ident) => {
        // SAFETY: the use names the fact. `as_ptr` points to that memory, of which `len` bytes are initialized.
        unsafe impl IoBuf for $buffer {
            fn stable_ptr(&self) -> *const u8 {
                self.as_ptr()
            }

            fn bytes_init(&self) -> usize {
                self.len()
            }

            fn bytes_total(&self) -> usize {
                self.$total()
            }
        }
    };
}

/// Implements [`IoBufMut`] for a type that owns its capacity alone.
macro_rules! io_buf_mut {
    ($buffer:ty) => {
        // SAFETY: as for `IoBuf`. The buffer owns its memory, so it may be written to.
        unsafe impl IoBufMut for $buffer {
            fn stable_mut_ptr(&mut self) -> *mut u8 {
                self.as_mut_ptr()
            }

            unsafe fn set_init(&mut self, pos: usize) {
                let len = pos.max(self.len());
                // SAFETY: `pos` bytes have been written by this function's contract, and `len` bytes before that.
                unsafe { self.set_len(len) }
            }
        }
    };
}

// The memory lies on the heap, or nowhere, and stays there while the vector is not changed. Its capacity is allocated.
io_buf!(Vec<u8>, capacity);
io_buf_mut!(Vec<u8>);
// What it refers to lives and stays in place for ever.
io_buf!(&'static [u8], len);
io_buf!(&'static str, len);
// The bytes lie on the heap or are static, and stay in place while one `Bytes` refers to them.
#[cfg(feature = "bytes")]
io_buf!(bytes::Bytes, len);
// As for vectors: its capacity is allocated for it alone.
#[cfg(feature = "bytes")]
io_buf!(bytes::BytesMut, capacity);
#[cfg(feature = "bytes")]
io_buf_mut!(bytes::BytesMut);

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn panics<T>(run: impl FnOnce() -> T) -> bool {
        catch_unwind(AssertUnwindSafe(run)).is_err()
    }

    macro_rules! tests_of {
        ($name:ident, $($buf:tt)+) => {
            mod $name {
                use $($buf)+::{BoundedBuf, BoundedBufMut, IoBuf, IoBufMut, Slice};

                use super::panics;

                fn spare(bytes: &[u8], capacity: usize) -> Vec<u8> {
                    let mut buffer = Vec::with_capacity(capacity);
                    buffer.extend_from_slice(bytes);
                    assert_eq!(buffer.capacity(), capacity);
                    buffer
                }

                #[test]
                fn a_slice_of_a_slice_counts_from_its_own_start() {
                    let outer = "0123456789".slice(2..8);
                    assert_eq!((outer.begin(), outer.end(), &outer[..]), (2, 8, &b"234567"[..]));
                    let inner = outer.slice(1..=3);
                    assert_eq!((inner.bounds(), &inner[..]), (3..6, &b"345"[..]));
                    let rest = inner.slice(..).slice(2..);
                    assert_eq!((rest.bounds(), rest.into_inner().len()), (5..6, 10));
                }

                #[test]
                fn a_slice_shows_initialized_bytes_and_has_room_for_all_within_its_bounds() {
                    let slice = spare(b"abc", 8).slice(1..6);
                    assert_eq!((&slice[..], slice.bytes_init(), slice.bytes_total()), (&b"bc"[..], 2, 5));
                    let all = spare(b"abc", 8).slice_full();
                    assert_eq!((all.bounds(), all.bytes_init()), (0..8, 3));
                }

                #[test]
                fn ranges_beyond_the_buffer_or_its_initialized_bytes_panic() {
                    let buffer = || spare(b"abc", 8);
                    assert!(panics(|| buffer().slice(..9)));
                    assert!(panics(|| buffer().slice(4..)));
                    assert!(panics(|| buffer().slice(..=usize::MAX)));
                    assert!(panics(|| spare(b"12345678", 8).slice(8..)));
                    assert!(panics(|| buffer().slice(1..5).slice(..5)));
                    assert!(panics(|| buffer().slice(1..5).slice(5..)));
                    assert!(panics(|| Slice::from_buf_bounds(buffer(), 0..9)));
                    assert!(panics(|| Slice::from_buf_bounds(buffer(), 4..5)));
                    assert!(!panics(|| buffer().slice(3..3)));
                    assert!(!panics(|| spare(b"12345678", 8).slice(1..).slice(7..)));
                }

                #[test]
                fn a_view_is_the_same_after_it_was_taken_apart() {
                    let slice = spare(b"abcdef", 8).slice(1..4);
                    let bounds = slice.bounds();
                    let again: Slice<Vec<u8>> = BoundedBuf::from_buf_bounds(slice.into_inner(), bounds);
                    assert_eq!((&again[..], again.get_buf().len()), (&b"bcd"[..], 6));
                    let whole = spare(b"abc", 3);
                    let start = IoBuf::stable_ptr(&whole);
                    assert_eq!(BoundedBuf::stable_ptr(&whole.slice(1..)), start.wrapping_add(1));
                }

                #[test]
                fn bytes_are_put_at_the_start_of_a_view_and_lengthen_the_buffer_only() {
                    let mut slice = spare(b"abc", 8).slice(2..7);
                    slice.put_slice(b"12345");
                    assert_eq!(&slice[..], b"12345");
                    assert!(panics(|| slice.put_slice(b"123456")));
                    let mut buffer = slice.into_inner();
                    assert_eq!(buffer, b"ab12345");
                    buffer.put_slice(b"x");
                    assert_eq!(buffer, b"xb12345");
                    let mut slice = buffer.slice(1..3);
                    slice[0] = b'y';
                    slice.get_mut()[0] = b'z';
                    assert_eq!(slice.get_ref(), b"zy12345");
                }

                #[test]
                fn marking_fewer_bytes_than_are_initialized_keeps_the_length() {
                    let mut buffer = spare(b"abc", 8);
                    // SAFETY: so many bytes are initialized already.
                    unsafe { IoBufMut::set_init(&mut buffer, 1) };
                    assert_eq!(buffer, b"abc");
                    let mut slice = buffer.slice(1..);
                    // SAFETY: likewise.
                    unsafe { slice.set_init(1) };
                    assert_eq!(slice.get_ref(), b"abc");
                    let at = slice.stable_mut_ptr().cast_const();
                    assert_eq!(at, BoundedBuf::stable_ptr(&slice));
                }

                #[test]
                fn borrowed_bytes_and_text_are_whole_buffers() {
                    let (bytes, text): (&'static [u8], &'static str) = (b"bytes", "text");
                    assert_eq!((IoBuf::bytes_init(&bytes), IoBuf::bytes_total(&bytes)), (5, 5));
                    assert_eq!((IoBuf::bytes_init(&text), IoBuf::bytes_total(&text)), (4, 4));
                    assert_eq!(&text.slice(1..3)[..], b"ex");
                }

                #[cfg(feature = "bytes")]
                #[test]
                fn bytes_are_whole_buffers_and_bytes_mut_has_its_capacity() {
                    let shared = bytes::Bytes::from_static(b"shared");
                    assert_eq!((IoBuf::bytes_init(&shared), IoBuf::bytes_total(&shared)), (6, 6));
                    let mut unique = bytes::BytesMut::with_capacity(16);
                    let total = IoBuf::bytes_total(&unique);
                    assert_eq!((IoBuf::bytes_init(&unique), total), (0, unique.capacity()));
                    unique.put_slice(b"unique");
                    assert_eq!(&unique[..], b"unique");
                }
            }
        };
    }

    tests_of!(own, crate::buf::traits);
    #[cfg(target_env = "gnu")]
    tests_of!(of_tokio_uring, tokio_uring::buf);
}
