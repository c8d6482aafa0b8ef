//! Owned buffers ([`BoundedBuf`], `BoundedBufMut`) seen as slices.
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

/// The bytes to send: what is initialised, within the slice's bounds.
pub(crate) fn filled<T: IoBuf>(slice: &Slice<T>) -> &[u8] {
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
    // initialised bytes into it: the kernel does, or `RoomWriter`.
    unsafe {
        slice::from_raw_parts_mut(buffer.stable_mut_ptr().cast::<MaybeUninit<u8>>().add(begin), len)
    }
}

/// The memory of one owned buffer, to receive into.
pub(crate) struct Capacity<'a> {
    memory: &'a mut [MaybeUninit<u8>],
    /// So much of it has been written, from its start.
    written: usize,
}

/// How much of a buffer's [`Capacity`] has been written.
pub(crate) struct Written(usize);

impl<'a> Capacity<'a> {
    /// Asks the buffer for its memory: runs its own methods.
    pub(crate) fn of<T: IoBufMut>(slice: &'a mut Slice<T>) -> Self {
        Self { memory: room(slice), written: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len()
    }

    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.memory.len());
        // SAFETY: both are at least `len` long, and exclusive borrows do not overlap.
        unsafe {
            let to = self.memory.as_mut_ptr().cast::<u8>();
            to.copy_from_nonoverlapping(bytes.as_ptr(), len);
        }
        self.written = len;
    }

    /// For the kernel to write to.
    pub(crate) fn vector(&mut self) -> libc::iovec {
        libc::iovec { iov_base: self.memory.as_mut_ptr().cast(), iov_len: self.memory.len() }
    }

    /// # Safety
    /// The kernel has written a message of so many bytes to [`vector`](Self::vector), as far as that reaches.
    pub(crate) unsafe fn received(&mut self, message_len: usize) {
        self.written = message_len.min(self.memory.len());
    }

    pub(crate) fn written(&self) -> Written {
        Written(self.written)
    }
}

/// Tells the buffer how much of its capacity has been written. Runs its own methods.
pub(crate) fn note_written<T: IoBufMut>(slice: &mut Slice<T>, Written(len): Written) {
    // SAFETY: so many bytes of the slice's memory were written, by `fill` or by the kernel: only `Capacity` makes a
    // `Written`, and callers hand it to the slice that the capacity was of.
    unsafe { set_received(slice, len) }
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

    /// Tell the buffers how many bytes each has received, in order.
    ///
    /// # Safety
    /// So many bytes of their [`rooms`](Self::rooms) have been written.
    unsafe fn set_received(&mut self, lens: impl Iterator<Item = usize>);
}

/// How `len` bytes lie in rooms that were filled one after the other.
pub(crate) fn spread(mut len: usize, rooms: &[libc::iovec]) -> impl Iterator<Item = usize> {
    rooms.iter().map(move |room| {
        let here = len.min(room.iov_len);
        len -= here;
        here
    })
}

/// Writes into rooms, one after the other.
pub(crate) struct RoomWriter<'a> {
    rooms: &'a [libc::iovec],
    /// So much of the first is taken.
    at: usize,
}

impl<'a> RoomWriter<'a> {
    /// # Safety
    /// The rooms are valid for writes, and the caller's alone, while this is used; what is written is
    /// not in them.
    pub(crate) unsafe fn new(rooms: &'a [libc::iovec]) -> Self {
        Self { rooms, at: 0 }
    }

    /// Write as much as fits, and return how much that is.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let [room, behind @ ..] = self.rooms
            && !rest.is_empty()
        {
            let now = rest.len().min(room.iov_len - self.at);
            // SAFETY: `now` bytes from `at` on are within the room; the rest is the promise of `new`.
            unsafe {
                let to = room.iov_base.cast::<u8>().add(self.at);
                to.copy_from_nonoverlapping(rest.as_ptr(), now);
            }
            rest = &rest[now..];
            self.at += now;
            if self.at == room.iov_len {
                (self.rooms, self.at) = (behind, 0);
            }
        }
        bytes.len() - rest.len()
    }
}

/// The places of so many rooms are kept without an allocation.
const FEW: usize = 4;

/// Owned buffers to receive into, and where they are. The buffers' own methods run when this is made
/// and when it is settled, and not in between, where locks are held.
pub(crate) struct Scatter<P> {
    parts: P,
    /// Where the first rooms are.
    few: [libc::iovec; FEW],
    /// Where all are, if there are more.
    more: Vec<libc::iovec>,
    count: usize,
    capacity: usize,
    /// So many bytes have been written into the rooms, and the buffers do not know yet.
    received: Option<usize>,
}

// SAFETY: the iovecs lead to the buffers in `parts`, which is Send and owned with them.
unsafe impl<P: Send> Send for Scatter<P> {}

fn rooms<'a>(few: &'a [libc::iovec], more: &'a [libc::iovec], count: usize) -> &'a [libc::iovec] {
    if count > FEW { more } else { &few[..count] }
}

impl<P> Scatter<P> {
    /// In order.
    pub(crate) fn rooms(&self) -> &[libc::iovec] {
        rooms(&self.few, &self.more, self.count)
    }

    /// Bytes in all rooms.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// A message of `len` bytes was received, as far as there is room.
    ///
    /// # Safety
    /// So much of it has been written into [`rooms`](Self::rooms), in order.
    pub(crate) unsafe fn received(&mut self, len: usize) {
        self.received = Some(len);
    }

    /// Copy as much of a message as fits. Returns how much that is.
    pub(crate) fn fill(&mut self, message: &[u8]) -> usize {
        // SAFETY: the rooms are those of `parts`, borrowed exclusively.
        let len = unsafe { RoomWriter::new(self.rooms()) }.write(message);
        // SAFETY: so much has just been written.
        unsafe { self.received(len) };
        len
    }
}

impl<P: PartsMut> Scatter<P> {
    /// Runs the buffers' own methods.
    pub(crate) fn new(mut parts: P) -> Self {
        let mut few = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; FEW];
        let (mut more, mut count, mut capacity) = (Vec::new(), 0, 0);
        for room in parts.rooms() {
            let vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
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
            capacity += room.len();
        }
        Self { parts, few, more, count, capacity, received: None }
    }

    /// The buffers, told of what was received. Runs their own methods.
    pub(crate) fn into_parts(mut self) -> P {
        if let Some(len) = self.received {
            let rooms = rooms(&self.few, &self.more, self.count);
            // SAFETY: the promise of `received`.
            unsafe { self.parts.set_received(spread(len, rooms)) };
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
    fn rooms(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]> {
        std::iter::once(room(&mut self.0))
    }

    unsafe fn set_received(&mut self, lens: impl Iterator<Item = usize>) {
        for len in lens.take(1) {
            // SAFETY: the caller's promise.
            unsafe { set_received(&mut self.0, len) }
        }
    }
}

impl<T: IoBufMut + Send> PartsMut for Vec<Slice<T>> {
    fn rooms(&mut self) -> impl Iterator<Item = &mut [MaybeUninit<u8>]> {
        self.iter_mut().map(room)
    }

    unsafe fn set_received(&mut self, lens: impl Iterator<Item = usize>) {
        for (slice, len) in self.iter_mut().zip(lens) {
            // SAFETY: the caller's promise.
            unsafe { set_received(slice, len) }
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
