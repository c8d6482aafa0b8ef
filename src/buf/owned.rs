//! Owned buffers ([`BoundedBuf`], `BoundedBufMut`) seen as slices.
//!
//! Those two traits are safe to implement, so nothing here relies on their answers. A call turns its
//! buffers into tokio-uring's own [`Slice`] of the underlying [`IoBuf`] ([`lend`]), and back when it
//! is done ([`restore`]).
//!
//! `IoBuf` and [`IoBufMut`] are unsafe to implement. Their contract: while the buffer lives,
//! `stable_ptr` is valid for `bytes_total` bytes, and `bytes_init` of them are initialized. Every
//! block here rests on that contract, and on no slice's bounds. The bounds were checked when the
//! slice was made, and its buffer can have been replaced since.
#![allow(unsafe_code, reason = "raw views into buffers whose traits speak in pointers")]

use std::any::Any;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::slice;

use crate::buf::{BoundedBuf, IoBuf, IoBufMut, Slice};

/// Returns the buffer under a view, with the view's bounds, which [`restore`] needs.
pub(crate) fn lend<B: BoundedBuf>(view: B) -> (Slice<B::Buf>, B::Bounds) {
    let bounds = view.bounds();
    (view.slice_full(), bounds)
}

/// Returns the view that was lent.
pub(crate) fn restore<B: BoundedBuf>(slice: Slice<B::Buf>, bounds: B::Bounds) -> B {
    // A view that is such a slice already is returned as it is. That also holds where the buffer has
    // become too small for its bounds, for which from_buf_bounds would panic.
    let mut slice = Some(slice);
    let same: &mut dyn Any = &mut slice;
    if let Some(view) = same.downcast_mut::<Option<B>>().and_then(Option::take) {
        return view;
    }
    let slice = slice.expect("taken above only");
    B::from_buf_bounds(slice.into_inner(), bounds)
}

/// Keeps what is needed to restore several views: their bounds, and the vector they were in.
pub(crate) struct LentBounds<B: BoundedBuf> {
    bounds: Vec<B::Bounds>,
    home: Vec<B>,
}

pub(crate) fn lend_all<B: BoundedBuf>(mut views: Vec<B>) -> (Vec<Slice<B::Buf>>, LentBounds<B>) {
    let (slices, bounds) = views.drain(..).map(lend).unzip();
    (slices, LentBounds { bounds, home: views })
}

impl<B: BoundedBuf> LentBounds<B> {
    pub(crate) fn restore(mut self, slices: Vec<Slice<B::Buf>>) -> Vec<B> {
        let views = slices.into_iter().zip(self.bounds);
        self.home.extend(views.map(|(slice, bounds)| restore::<B>(slice, bounds)));
        self.home
    }
}

/// Returns the bytes to send: those that are initialized, within the slice's bounds.
pub(crate) fn filled<T: IoBuf>(slice: &Slice<T>) -> &[u8] {
    let (buffer, begin) = (slice.get_ref(), slice.begin());
    let init = buffer.bytes_init();
    assert!(begin <= init, "a slice begins beyond the initialised part of its buffer");
    let len = slice.end().min(init).saturating_sub(begin);
    if len == 0 {
        return &[];
    }
    // SAFETY: the pointer is valid for `bytes_init` initialized bytes (contract of `IoBuf`). These
    // are among them by the assertion and `min` above. The borrow of the slice keeps them in place.
    unsafe { slice::from_raw_parts(buffer.stable_ptr().add(begin), len) }
}

/// Returns the memory to receive into: everything within the slice's bounds.
fn memory<T: IoBufMut>(slice: &mut Slice<T>) -> &mut [MaybeUninit<u8>] {
    let (begin, end) = (slice.begin(), slice.end());
    let buffer = slice.get_mut();
    // What is received is marked as initialized together with everything in front of it.
    let init = buffer.bytes_init();
    assert!(begin <= init, "a slice begins beyond the initialised part of its buffer");
    let len = end.min(buffer.bytes_total()).saturating_sub(begin);
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the pointer is valid for `bytes_total` bytes (contract of `IoBufMut`), and these are
    // among them by the `min` above. The borrow is exclusive, and MaybeUninit requires nothing of
    // their contents. Only the kernel, `Capacity::fill` and `VectorWriter` write to them, and they
    // write initialized bytes.
    unsafe {
        slice::from_raw_parts_mut(buffer.stable_mut_ptr().cast::<MaybeUninit<u8>>().add(begin), len)
    }
}

/// Refers to the memory of one owned buffer, to receive into.
pub(crate) struct Capacity<'a> {
    memory: &'a mut [MaybeUninit<u8>],
    /// Bytes that have been written, from its start.
    written: usize,
}

/// Says how much of a buffer's [`Capacity`] has been written.
pub(crate) struct Written(usize);

impl<'a> Capacity<'a> {
    /// Asks the buffer for its memory, which runs the buffer's own methods.
    pub(crate) fn of<T: IoBufMut>(slice: &'a mut Slice<T>) -> Self {
        Self { memory: memory(slice), written: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len()
    }

    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.memory.len());
        // SAFETY: `len` is at most the length of both. `memory` is an exclusive borrow and `bytes` a
        // shared one, so they do not overlap.
        unsafe {
            let to = self.memory.as_mut_ptr().cast::<u8>();
            to.copy_from_nonoverlapping(bytes.as_ptr(), len);
        }
        self.written = len;
    }

    /// Returns the memory for the kernel to write to.
    pub(crate) fn vector(&mut self) -> libc::iovec {
        libc::iovec { iov_base: self.memory.as_mut_ptr().cast(), iov_len: self.memory.len() }
    }

    /// Notes that the kernel has received a message into the memory.
    ///
    /// # Safety
    /// The kernel has written a message of `message_len` bytes to [`vector`](Self::vector), as far as it fits.
    pub(crate) unsafe fn received(&mut self, message_len: usize) {
        self.written = message_len.min(self.memory.len());
    }

    pub(crate) fn written(&self) -> Written {
        Written(self.written)
    }
}

/// Tells the buffer how much of its capacity has been written, which runs its own methods.
pub(crate) fn note_written<T: IoBufMut>(slice: &mut Slice<T>, Written(len): Written) {
    // SAFETY: `len` bytes of the slice's memory were written by `Capacity::fill` or by the kernel:
    // only `Capacity` makes a `Written`, and callers pass it with the slice of that capacity.
    unsafe { set_received(slice, len) }
}

/// Tells the buffer that the first `len` bytes of its [`memory`] have been received.
///
/// # Safety
/// Those bytes have been written.
unsafe fn set_received<T: IoBufMut>(slice: &mut Slice<T>, len: usize) {
    let pos = slice.begin() + len;
    // SAFETY: `memory` asserted that the bytes in front of the slice were initialized. By this
    // function's own contract, the first `len` bytes of the slice have been written since.
    unsafe { slice.get_mut().set_init(pos) }
}

/// What a message is gathered from: one owned buffer, or several.
pub(crate) trait Parts: Send + 'static {
    fn count(&self) -> usize;
    /// Returns the bytes of one part to send.
    fn part(&self, index: usize) -> &[u8];

    fn total(&self) -> usize {
        (0..self.count()).map(|index| self.part(index).len()).sum()
    }

    /// Returns all parts.
    ///
    /// This is no reference to `self`, so a future that holds it is `Send` where the parts are, `Sync`
    /// or not.
    fn slices(&self) -> Slices<'_> {
        match self.count() {
            1 => Slices::One([IoSlice::new(self.part(0))]),
            count => Slices::Many((0..count).map(|index| IoSlice::new(self.part(index))).collect()),
        }
    }
}

/// The parts of a message. One part needs no allocation.
pub(crate) enum Slices<'a> {
    One([IoSlice<'a>; 1]),
    Many(Vec<IoSlice<'a>>),
}

impl<'a> Deref for Slices<'a> {
    type Target = [IoSlice<'a>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// What a message is scattered into: one owned buffer, or several.
pub(crate) trait PartsMut: Send + 'static {
    /// Returns the memory of every buffer, in order.
    fn buffers(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]>;

    /// Tells the buffers how many bytes each has received, in order.
    ///
    /// # Safety
    /// So many bytes of each of their [`buffers`](Self::buffers) have been written.
    unsafe fn set_received(&mut self, lens: impl Iterator<Item = usize>);
}

/// Returns how many of `len` bytes lie in each buffer, if they were filled one after the other.
pub(crate) fn spread(mut len: usize, vectors: &[libc::iovec]) -> impl Iterator<Item = usize> {
    vectors.iter().map(move |vector| {
        let here = len.min(vector.iov_len);
        len -= here;
        here
    })
}

/// Writes into several buffers, one after the other.
pub(crate) struct VectorWriter<'a> {
    vectors: &'a [libc::iovec],
    /// Bytes of the first that are written.
    at: usize,
}

impl<'a> VectorWriter<'a> {
    /// # Safety
    /// The memory that `vectors` describe is valid for writes while the writer lives, and nothing else
    /// accesses it. The bytes to write do not lie in it.
    pub(crate) unsafe fn new(vectors: &'a [libc::iovec]) -> Self {
        Self { vectors, at: 0 }
    }

    /// Writes as many bytes as fit, and returns how many that is.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let [vector, behind @ ..] = self.vectors
            && !rest.is_empty()
        {
            let now = rest.len().min(vector.iov_len - self.at);
            // SAFETY: `now` bytes from `at` on are within the vector by the `min` above. By the contract
            // of `new` they are valid for writes and do not overlap with `rest`.
            unsafe {
                let to = vector.iov_base.cast::<u8>().add(self.at);
                to.copy_from_nonoverlapping(rest.as_ptr(), now);
            }
            rest = &rest[now..];
            self.at += now;
            if self.at == vector.iov_len {
                (self.vectors, self.at) = (behind, 0);
            }
        }
        bytes.len() - rest.len()
    }
}

/// The vectors of so many buffers are kept without an allocation.
const FEW: usize = 4;

/// Owned buffers to receive into, and where they are.
///
/// The buffers' own methods run when this is made and when it is turned back into the buffers. They
/// do not run in between, where locks are held.
pub(crate) struct Scatter<P> {
    parts: P,
    /// Where the first buffers are.
    few: [libc::iovec; FEW],
    /// Where all of them are, if there are more than `few` holds.
    more: Vec<libc::iovec>,
    count: usize,
    capacity: usize,
    /// Bytes that have been written into the buffers, which do not know of them yet.
    received: Option<usize>,
}

// SAFETY: the iovecs point to the memory of the buffers in `parts`, which is Send. Both are owned by
// this value and move together, and `IoBufMut` promises that the memory stays where it is.
unsafe impl<P: Send> Send for Scatter<P> {}

fn vectors<'a>(few: &'a [libc::iovec], more: &'a [libc::iovec], count: usize) -> &'a [libc::iovec] {
    if count > FEW { more } else { &few[..count] }
}

impl<P> Scatter<P> {
    /// Returns where the buffers are, in order.
    pub(crate) fn vectors(&self) -> &[libc::iovec] {
        vectors(&self.few, &self.more, self.count)
    }

    /// Returns how many bytes all buffers hold.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Notes that a message of `len` bytes was received, as far as it fits.
    ///
    /// # Safety
    /// That much of it has been written into [`vectors`](Self::vectors), in order.
    pub(crate) unsafe fn received(&mut self, len: usize) {
        self.received = Some(len);
    }

    /// Copies as much of a message as fits, and returns how many bytes that is.
    pub(crate) fn fill(&mut self, message: &[u8]) -> usize {
        // SAFETY: the vectors describe the memory of `parts`, which this value owns and `&mut self`
        // borrows exclusively. `message` is a borrow from elsewhere.
        let len = unsafe { VectorWriter::new(self.vectors()) }.write(message);
        // SAFETY: `write` has just written `len` bytes into the vectors, in order.
        unsafe { self.received(len) };
        len
    }
}

impl<P: PartsMut> Scatter<P> {
    /// Asks the buffers for their memory, which runs their own methods.
    pub(crate) fn new(mut parts: P) -> Self {
        let mut few = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; FEW];
        let (mut more, mut count, mut capacity) = (Vec::new(), 0, 0);
        for buffer in parts.buffers() {
            let vector =
                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            match few.get_mut(count) {
                Some(slot) => *slot = vector,
                None => {
                    if more.is_empty() {
                        more.extend_from_slice(&few);
                    }
                    more.push(vector);
                }
            }
            count += 1;
            capacity += buffer.len();
        }
        Self { parts, few, more, count, capacity, received: None }
    }

    /// Returns the buffers, with their lengths set to what was received, which runs their own methods.
    pub(crate) fn into_parts(mut self) -> P {
        if let Some(len) = self.received {
            let vectors = vectors(&self.few, &self.more, self.count);
            // SAFETY: `received` was called with `len`: its contract says that so many bytes have been
            // written into the vectors, in order, and `spread` divides them in the same order.
            unsafe { self.parts.set_received(spread(len, vectors)) };
        }
        self.parts
    }
}

/// A single buffer.
pub(crate) struct One<S>(pub(crate) S);

impl<T: IoBuf + Send> Parts for One<Slice<T>> {
    fn count(&self) -> usize {
        1
    }

    fn part(&self, _index: usize) -> &[u8] {
        filled(&self.0)
    }
}

impl<T: IoBuf + Send> Parts for Vec<Slice<T>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn part(&self, index: usize) -> &[u8] {
        filled(&self[index])
    }
}

impl<T: IoBufMut + Send> PartsMut for One<Slice<T>> {
    fn buffers(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]> {
        std::iter::once(memory(&mut self.0))
    }

    unsafe fn set_received(&mut self, lens: impl Iterator<Item = usize>) {
        for len in lens.take(1) {
            // SAFETY: by the contract of `PartsMut::set_received`, `len` bytes of this slice's memory
            // have been written.
            unsafe { set_received(&mut self.0, len) }
        }
    }
}

impl<T: IoBufMut + Send> PartsMut for Vec<Slice<T>> {
    fn buffers(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]> {
        self.iter_mut().map(memory)
    }

    unsafe fn set_received(&mut self, lens: impl Iterator<Item = usize>) {
        for (slice, len) in self.iter_mut().zip(lens) {
            // SAFETY: by the contract of `PartsMut::set_received`, `len` bytes of this slice's memory
            // have been written.
            unsafe { set_received(slice, len) }
        }
    }
}

/// A box whose type only the caller knows, and which outlives its contents. The next operation with
/// buffers of the same type reuses it.
pub(crate) trait ErasedBuffers: Any + Send {
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<P: Send + 'static> ErasedBuffers for Option<P> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
