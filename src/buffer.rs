//! Owned buffers ([`BoundedBuf`], [`BoundedBufMut`]) seen as slices.
//!
//! Those two traits are safe to implement, so nothing here believes what they say. A call turns its
//! buffers into tokio-uring's own [`Slice`] of the underlying [`IoBuf`] ([`lend`]), and back when it
//! is done ([`restore`]). `IoBuf` and [`IoBufMut`] are unsafe to implement: whoever does promises that
//! `stable_ptr` stays valid for `bytes_total` bytes, `bytes_init` of them initialised, as long as the
//! buffer lives. Every block here rests on that promise, and not on a slice's bounds: they were true
//! when it was made, and its buffer can have been exchanged since.
#![allow(unsafe_code, reason = "raw views into buffers whose traits speak in pointers")]

use std::any::Any;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::slice;

use tokio_uring::buf::{BoundedBuf, IoBuf, IoBufMut, Slice};

use crate::stream::Lease;

/// The buffer under a view, with the view's bounds, and what [`restore`] wants to know.
pub(crate) fn lend<B: BoundedBuf>(view: B) -> (Slice<B::Buf>, B::Bounds) {
    let bounds = view.bounds();
    (view.slice_full(), bounds)
}

/// The view that was lent.
pub(crate) fn restore<B: BoundedBuf>(slice: Slice<B::Buf>, bounds: B::Bounds) -> B {
    // One that is such a slice already comes back as it is, also where the buffer has become too small
    // for its bounds, which is a panic in from_buf_bounds.
    let mut slice = Some(slice);
    let same: &mut dyn Any = &mut slice;
    if let Some(view) = same.downcast_mut::<Option<B>>().and_then(Option::take) {
        return view;
    }
    let slice = slice.expect("taken above only");
    B::from_buf_bounds(slice.into_inner(), bounds)
}

/// What is needed to restore several views: their bounds, and the vector they were in.
pub(crate) struct Lent<B: BoundedBuf> {
    bounds: Vec<B::Bounds>,
    home: Vec<B>,
}

pub(crate) fn lend_all<B: BoundedBuf>(mut views: Vec<B>) -> (Vec<Slice<B::Buf>>, Lent<B>) {
    let (slices, bounds) = views.drain(..).map(lend).unzip();
    (slices, Lent { bounds, home: views })
}

impl<B: BoundedBuf> Lent<B> {
    pub(crate) fn restore(mut self, slices: Vec<Slice<B::Buf>>) -> Vec<B> {
        let views = slices.into_iter().zip(self.bounds);
        self.home.extend(views.map(|(slice, bounds)| restore::<B>(slice, bounds)));
        self.home
    }
}

/// The bytes to send: what is initialised, within the slice's bounds.
fn filled<T: IoBuf>(slice: &Slice<T>) -> &[u8] {
    let (buffer, begin) = (slice.get_ref(), slice.begin());
    let init = buffer.bytes_init();
    assert!(begin <= init, "a slice begins beyond the initialised part of its buffer");
    let len = slice.end().min(init).saturating_sub(begin);
    if len == 0 {
        return &[];
    }
    // SAFETY: the pointer is valid for `bytes_init` initialised bytes (promise of the trait), these
    // are among them, and the borrow of the slice keeps them where they are.
    unsafe { slice::from_raw_parts(buffer.stable_ptr().add(begin), len) }
}

/// The room to receive into: everything within the slice's bounds.
fn room<T: IoBufMut>(slice: &mut Slice<T>) -> &mut [MaybeUninit<u8>] {
    let (begin, end) = (slice.begin(), slice.end());
    let buffer = slice.get_mut();
    // What is received is marked as initialised together with all that is before it.
    let init = buffer.bytes_init();
    assert!(begin <= init, "a slice begins beyond the initialised part of its buffer");
    let len = end.min(buffer.bytes_total()).saturating_sub(begin);
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the pointer is valid for `bytes_total` bytes (promise of the trait), these are among
    // them, the borrow is exclusive, and MaybeUninit asks nothing of their contents. Callers only write
    // initialised bytes into it: the kernel does, or `fill`.
    unsafe {
        slice::from_raw_parts_mut(buffer.stable_mut_ptr().cast::<MaybeUninit<u8>>().add(begin), len)
    }
}

/// Tell the buffer that the first `len` bytes of its [`room`] have been received.
///
/// # Safety
/// They have been written.
unsafe fn set_received<T: IoBufMut>(slice: &mut Slice<T>, len: usize) {
    let pos = slice.begin() + len;
    // SAFETY: what is before the slice was initialised when the room was asked for, the rest has been
    // written since (the caller's promise).
    unsafe { slice.get_mut().set_init(pos) }
}

/// One owned buffer, or several: what a message is gathered from.
pub(crate) trait Parts: Send + 'static {
    fn count(&self) -> usize;
    /// The bytes of one part to send.
    fn part(&self, index: usize) -> &[u8];

    fn total(&self) -> usize {
        (0..self.count()).map(|index| self.part(index).len()).sum()
    }

    /// All parts. Not a reference to `self`: a future that holds this is Send where the parts are,
    /// Sync or not.
    fn slices(&self) -> Slices<'_> {
        match self.count() {
            1 => Slices::One([IoSlice::new(self.part(0))]),
            count => Slices::Many((0..count).map(|index| IoSlice::new(self.part(index))).collect()),
        }
    }
}

/// The parts of a message, without an allocation where there is one.
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

/// One owned buffer, or several: what a message is scattered into.
pub(crate) trait PartsMut: Send + 'static {
    /// The room of every part, in order.
    fn rooms(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]>;

    fn capacity(&mut self) -> usize {
        self.rooms().map(|room| room.len()).sum()
    }

    /// Tell the buffers that their first `len` bytes together have been received.
    ///
    /// # Safety
    /// Those bytes of [`rooms`](Self::rooms) have been written.
    unsafe fn set_received(&mut self, len: usize);
}

/// Copy as much of a message as fits, and tell the buffers. Returns how much that is.
pub(crate) fn fill(parts: &mut impl PartsMut, message: &[u8]) -> usize {
    let mut rest = message;
    for room in parts.rooms() {
        let (now, later) = rest.split_at(rest.len().min(room.len()));
        for (slot, byte) in room.iter_mut().zip(now) {
            slot.write(*byte);
        }
        rest = later;
    }
    let len = message.len() - rest.len();
    // SAFETY: that many bytes have just been written, one room after the other.
    unsafe { parts.set_received(len) };
    len
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
    fn rooms(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]> {
        std::iter::once(room(&mut self.0))
    }

    unsafe fn set_received(&mut self, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { set_received(&mut self.0, len) }
    }
}

impl<T: IoBufMut + Send> PartsMut for Vec<Slice<T>> {
    fn rooms(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]> {
        self.iter_mut().map(room)
    }

    unsafe fn set_received(&mut self, mut len: usize) {
        for slice in self {
            let here = len.min(room(slice).len());
            // SAFETY: the caller's promise; parts are filled one after the other.
            unsafe { set_received(slice, here) }
            len -= here;
        }
    }
}

// SAFETY: the vector's bytes lie on the heap, where they stay when the lease is moved; its capacity is
// allocated and its length initialised.
unsafe impl IoBuf for Lease {
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

// SAFETY: as above.
unsafe impl IoBufMut for Lease {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        if self.bytes.len() < pos {
            // SAFETY: the caller says that so many bytes are initialised, within the capacity.
            unsafe { self.bytes.set_len(pos) };
        }
    }
}

/// A box whose type is known to the caller only, and which survives what is in it: the next
/// operation with buffers of the same type reuses it.
pub(crate) trait Shell: Any + Send {
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<P: Send + 'static> Shell for Option<P> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
