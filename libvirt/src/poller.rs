//! What the event thread waits for: files and timers, by epoll.
//!
//! libvirt comes with an event loop of its own, over GLib, which wakes its thread whenever something that it waits for is
//! changed. Each call on a connection changes it three times: the socket is taken out for the call, whose own thread reads the
//! answer, it is put back, and the next keep-alive is put off. Here the first two are a system call each, and the third only
//! writes down when: the thread wakes when it would have, sees that it is too early, and sleeps on.

use std::{
    collections::BTreeMap,
    ffi::{c_int, c_void},
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, Timespec, epoll, eventfd},
    io::{Errno, fcntl_dupfd_cloexec, read, write},
};
use virt_sys as sys;

/// Events taken at a time.
const EVENTS: usize = 64;
/// What epoll names the bell by. Watches are numbered from 1.
const BELL: u64 = 0;

/// Called with the watch, its file, what there is of `VIR_EVENT_HANDLE_*`, and the data.
pub(crate) type HandleCall = unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void);
/// Called with the timer and the data.
pub(crate) type TimerCall = unsafe extern "C" fn(c_int, *mut c_void);

/// The data of a callback.
pub(crate) struct Data {
    pub(crate) opaque: *mut c_void,
    /// What frees it, on the thread that turns and under no lock of libvirt's: it may take those itself.
    pub(crate) free: sys::virFreeCallback,
}

// SAFETY: what it points to is libvirt's, which hands it to whatever thread runs the loop.
unsafe impl Send for Data {}

struct Handle {
    /// libvirt's number of the file, which it is told of events by.
    fd: c_int,
    /// The same file. epoll knows a number only once, libvirt may watch it more often; and it is open as long as it is watched.
    file: OwnedFd,
    /// Of `VIR_EVENT_HANDLE_*`; 0 for none.
    wanted: c_int,
    call: HandleCall,
    data: Data,
}

struct Timer {
    /// How often; `None` while it is switched off.
    every: Option<Duration>,
    due: Option<Instant>,
    call: TimerCall,
    data: Data,
}

impl Timer {
    fn set(&mut self, every_ms: c_int) {
        self.every = u64::try_from(every_ms).ok().map(Duration::from_millis);
        self.due = self.every.map(|every| Instant::now() + every);
    }
}

/// What the thread that turns is at.
#[derive(Default)]
enum Thread {
    /// It looks at everything again before it sleeps.
    #[default]
    Awake,
    /// It sleeps until then, or until it is woken.
    Asleep(Option<Instant>),
}

#[derive(Default)]
struct Waits {
    /// The newest watch or timer.
    last: c_int,
    handles: BTreeMap<c_int, Handle>,
    timers: BTreeMap<c_int, Timer>,
    /// Of what was removed.
    left: Vec<Data>,
    thread: Thread,
}

impl Waits {
    fn number(&mut self) -> c_int {
        self.last = self.last % c_int::MAX + 1;
        self.last
    }

    fn next_due(&self) -> Option<Instant> {
        self.timers.values().filter_map(|timer| timer.due).min()
    }
}

/// Files and timers, and one thread that [turns](Poller::turn). The others may be called on any thread, in callbacks, too.
pub(crate) struct Poller {
    epoll: OwnedFd,
    /// Wakes the thread.
    bell: OwnedFd,
    waits: Mutex<Waits>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        Ok(Poller { epoll, bell, waits: Mutex::default() })
    }

    /// Watches a file for `wanted` (`VIR_EVENT_HANDLE_*`); returns the watch.
    ///
    /// # Safety
    /// `fd` is open. `call`, and what frees the data, may be called with it until that was freed.
    pub(crate) unsafe fn add_handle(
        &self,
        fd: c_int,
        wanted: c_int,
        call: HandleCall,
        data: Data,
    ) -> io::Result<c_int> {
        // SAFETY: the caller's promise.
        let file = fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(fd) }, 0)?;
        let mut waits = self.lock();
        let watch = waits.number();
        let mut handle = Handle { fd, file, wanted: 0, call, data };
        self.want(&mut handle, watch, wanted)?;
        waits.handles.insert(watch, handle);
        Ok(watch)
    }

    /// Watches for something else from now on.
    pub(crate) fn update_handle(&self, watch: c_int, wanted: c_int) {
        if let Some(handle) = self.lock().handles.get_mut(&watch) {
            // What epoll has taken before, it takes again.
            let _ = self.want(handle, watch, wanted);
        }
    }

    fn want(&self, handle: &mut Handle, watch: c_int, wanted: c_int) -> rustix::io::Result<()> {
        let data = epoll::EventData::new_u64(watch as u64);
        match (handle.wanted, wanted) {
            (0, 0) => {}
            (0, _) => epoll::add(&self.epoll, &handle.file, data, to_epoll(wanted))?,
            // Nothing at all: epoll would still tell of errors and hang-ups.
            (_, 0) => epoll::delete(&self.epoll, &handle.file)?,
            (_, _) => epoll::modify(&self.epoll, &handle.file, data, to_epoll(wanted))?,
        }
        handle.wanted = wanted;
        Ok(())
    }

    /// Watches no more; returns whether it did.
    pub(crate) fn remove_handle(&self, watch: c_int) -> bool {
        let mut waits = self.lock();
        let Some(mut handle) = waits.handles.remove(&watch) else { return false };
        // Not left to the closing of the file: libvirt's own number keeps it open.
        let _ = self.want(&mut handle, watch, 0);
        self.leave(&mut waits, handle.data);
        true
    }

    /// Calls every so many milliseconds, below 0 not; returns the timer.
    ///
    /// # Safety
    /// `call`, and what frees the data, may be called with it until that was freed.
    pub(crate) unsafe fn add_timer(&self, every_ms: c_int, call: TimerCall, data: Data) -> c_int {
        let mut waits = self.lock();
        let number = waits.number();
        let mut timer = Timer { every: None, due: None, call, data };
        timer.set(every_ms);
        waits.timers.insert(number, timer);
        self.be_in_time(&mut waits);
        number
    }

    /// Calls every so many milliseconds from now on, below 0 not.
    pub(crate) fn update_timer(&self, timer: c_int, every_ms: c_int) {
        let mut waits = self.lock();
        let Some(timer) = waits.timers.get_mut(&timer) else { return };
        timer.set(every_ms);
        self.be_in_time(&mut waits);
    }

    /// Calls no more; returns whether it did.
    pub(crate) fn remove_timer(&self, timer: c_int) -> bool {
        let mut waits = self.lock();
        let Some(timer) = waits.timers.remove(&timer) else { return false };
        self.leave(&mut waits, timer.data);
        true
    }

    /// Waits until something happens, and calls back. Only one thread does.
    pub(crate) fn turn(&self) -> io::Result<()> {
        let timeout = self.fall_asleep();
        let mut events = Vec::with_capacity(EVENTS);
        let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
        self.lock().thread = Thread::Awake;
        for event in &events {
            match event.data.u64() {
                BELL => drop(read(&self.bell, &mut [0; 8])),
                watch => self.tell(watch as c_int, event.flags),
            }
        }
        self.tell_of_time();
        // Taken out first: what is called here may call back, or wait for somebody who does.
        let left = std::mem::take(&mut self.lock().left);
        for Data { opaque, free } in left {
            if let Some(free) = free {
                // SAFETY: promised when it was added; it was removed, and each is freed once.
                unsafe { free(opaque) };
            }
        }
        match waited {
            Err(error) if error != Errno::INTR => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn fall_asleep(&self) -> Option<Timespec> {
        let mut waits = self.lock();
        let due = if waits.left.is_empty() { waits.next_due() } else { Some(Instant::now()) };
        waits.thread = Thread::Asleep(due);
        due.map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        })
    }

    fn tell(&self, watch: c_int, flags: epoll::EventFlags) {
        let told = self.lock().handles.get(&watch).map(|one| (one.fd, one.wanted, one.call, one.data.opaque));
        // Removed, or switched off, by a call before it.
        let Some((fd, wanted, call, opaque)) = told.filter(|(_, wanted, ..)| *wanted != 0) else { return };
        // As poll does it: errors and hang-ups come unasked.
        let events = from_epoll(flags) & (wanted | UNASKED);
        if events == 0 {
            return;
        }
        // SAFETY: promised when it was added; what is removed is freed on this thread, later.
        unsafe { call(watch, fd, events, opaque) };
    }

    fn tell_of_time(&self) {
        let now = Instant::now();
        let is_due = |timer: &Timer| timer.due.is_some_and(|due| due <= now);
        let due: Vec<c_int> =
            self.lock().timers.iter().filter(|(_, timer)| is_due(timer)).map(|(number, _)| *number).collect();
        for number in due {
            let mut waits = self.lock();
            // Removed, or put off, by a call before it.
            let Some(timer) = waits.timers.get_mut(&number).filter(|timer| is_due(timer)) else { continue };
            timer.due = timer.every.map(|every| now + every);
            let (call, opaque) = (timer.call, timer.data.opaque);
            drop(waits);
            // SAFETY: as for files.
            unsafe { call(number, opaque) };
        }
    }

    fn leave(&self, waits: &mut Waits, data: Data) {
        if data.free.is_some() {
            waits.left.push(data);
            self.wake(waits);
        }
    }

    /// Wakes the thread if it would sleep over a timer.
    fn be_in_time(&self, waits: &mut Waits) {
        let Thread::Asleep(until) = waits.thread else { return };
        if waits.next_due().is_some_and(|due| until.is_none_or(|until| due < until)) {
            self.wake(waits);
        }
    }

    fn wake(&self, waits: &mut Waits) {
        if matches!(std::mem::take(&mut waits.thread), Thread::Asleep(_)) {
            // It can't be full: it is rung once, and read before it is rung again.
            let _ = write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const EVENT_FLAGS: [(sys::virEventHandleType, epoll::EventFlags); 4] = [
    (sys::VIR_EVENT_HANDLE_READABLE, epoll::EventFlags::IN),
    (sys::VIR_EVENT_HANDLE_WRITABLE, epoll::EventFlags::OUT),
    (sys::VIR_EVENT_HANDLE_ERROR, epoll::EventFlags::ERR),
    (sys::VIR_EVENT_HANDLE_HANGUP, epoll::EventFlags::HUP),
];

/// Told of whenever anything is wanted.
const UNASKED: c_int = (sys::VIR_EVENT_HANDLE_ERROR | sys::VIR_EVENT_HANDLE_HANGUP) as c_int;

fn to_epoll(events: c_int) -> epoll::EventFlags {
    EVENT_FLAGS.into_iter().filter(|(event, _)| events & *event as c_int != 0).map(|(_, flag)| flag).collect()
}

fn from_epoll(flags: epoll::EventFlags) -> c_int {
    let there = EVENT_FLAGS.into_iter().filter(|(_, flag)| flags.contains(*flag));
    there.fold(0, |events, (event, _)| events | event as c_int)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        os::{fd::AsRawFd, unix::net::UnixStream},
        sync::{
            atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst},
            mpsc::{Receiver, Sender, channel},
        },
        thread::{self, ThreadId},
    };

    const READABLE: c_int = sys::VIR_EVENT_HANDLE_READABLE as c_int;
    const WRITABLE: c_int = sys::VIR_EVENT_HANDLE_WRITABLE as c_int;
    const HANGUP: c_int = sys::VIR_EVENT_HANDLE_HANGUP as c_int;
    const SOON: Duration = Duration::from_secs(10);
    /// In which nothing happens, where nothing may.
    const A_WHILE: Duration = Duration::from_millis(50);

    /// What callbacks send: the events of a file, 0 of a timer, -1 when they are freed.
    struct Told(Sender<(c_int, ThreadId)>);

    impl Told {
        fn data() -> (Data, Receiver<(c_int, ThreadId)>) {
            let (send, receive) = channel();
            (Data { opaque: Box::into_raw(Box::new(Told(send))).cast(), free: Some(free) }, receive)
        }
    }

    unsafe extern "C" fn file(_: c_int, _: c_int, events: c_int, opaque: *mut c_void) {
        // SAFETY: the data of `Told::data`, which is not freed yet.
        let told = unsafe { &*opaque.cast::<Told>() };
        let _ = told.0.send((events, thread::current().id()));
    }

    unsafe extern "C" fn timer(_: c_int, opaque: *mut c_void) {
        // SAFETY: as there.
        unsafe { file(0, 0, 0, opaque) };
    }

    unsafe extern "C" fn free(opaque: *mut c_void) {
        // SAFETY: as there.
        unsafe { file(0, 0, -1, opaque) };
        // SAFETY: boxed by `Told::data`, and freed once.
        drop(unsafe { Box::from_raw(opaque.cast::<Told>()) });
    }

    /// A poller that turns on a thread of its own until it is dropped.
    struct Turning {
        poller: &'static Poller,
        turns: &'static AtomicUsize,
        thread: ThreadId,
        ends: &'static AtomicBool,
    }

    impl Turning {
        fn new() -> Turning {
            let poller: &Poller = Box::leak(Box::new(Poller::new().unwrap()));
            let (turns, ends): (&AtomicUsize, &AtomicBool) = (Box::leak(Box::default()), Box::leak(Box::default()));
            let thread = thread::spawn(|| {
                while !ends.load(SeqCst) {
                    poller.turn().unwrap();
                    turns.fetch_add(1, SeqCst);
                }
            });
            let turning = Turning { poller, turns, thread: thread.thread().id(), ends };
            turning.sleeps();
            turning
        }

        /// Waits until the thread sleeps; returns how often it has turned.
        fn sleeps(&self) -> usize {
            let end = Instant::now() + SOON;
            while !matches!(self.poller.lock().thread, Thread::Asleep(_)) {
                assert!(Instant::now() < end, "it never sleeps");
                thread::yield_now();
            }
            self.turns.load(SeqCst)
        }

        fn watch(&self, stream: &UnixStream, wanted: c_int) -> (c_int, Receiver<(c_int, ThreadId)>) {
            let (data, told) = Told::data();
            // SAFETY: the stream is open, and the data is of these callbacks.
            (unsafe { self.poller.add_handle(stream.as_raw_fd(), wanted, file, data) }.unwrap(), told)
        }

        fn timer(&self, every_ms: c_int) -> (c_int, Receiver<(c_int, ThreadId)>) {
            let (data, told) = Told::data();
            // SAFETY: the data is of these callbacks.
            (unsafe { self.poller.add_timer(every_ms, timer, data) }, told)
        }
    }

    impl Drop for Turning {
        fn drop(&mut self) {
            self.ends.store(true, SeqCst);
            self.timer(0);
        }
    }

    fn next(told: &Receiver<(c_int, ThreadId)>) -> c_int {
        told.recv_timeout(SOON).unwrap().0
    }

    fn nothing(told: &Receiver<(c_int, ThreadId)>) {
        while told.try_recv().is_ok() {}
        assert_eq!(told.recv_timeout(A_WHILE).ok(), None);
    }

    #[test]
    fn a_file_is_told_of_while_that_is_wanted() {
        let turning = Turning::new();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (watch, told) = turning.watch(&ours, READABLE);
        nothing(&told);
        theirs.write_all(b"x").unwrap();
        // Again and again, while it is not read.
        assert_eq!((next(&told), next(&told)), (READABLE, READABLE));
        turning.poller.update_handle(watch, 0);
        turning.sleeps();
        nothing(&told);
        turning.poller.update_handle(watch, READABLE | WRITABLE);
        assert_eq!(next(&told), READABLE | WRITABLE);
        assert!(turning.poller.remove_handle(watch));
        assert!(!turning.poller.remove_handle(watch));
    }

    #[test]
    fn a_hang_up_comes_unasked_but_not_where_nothing_is_wanted() {
        let turning = Turning::new();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (watch, told) = turning.watch(&ours, 0);
        drop(theirs);
        nothing(&told);
        turning.poller.update_handle(watch, READABLE);
        assert_eq!(next(&told), READABLE | HANGUP);
        turning.poller.remove_handle(watch);
    }

    #[test]
    fn one_file_can_be_watched_twice() {
        let turning = Turning::new();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ((reads, read), (writes, written)) = (turning.watch(&ours, READABLE), turning.watch(&ours, WRITABLE));
        assert_eq!(next(&written), WRITABLE);
        turning.poller.remove_handle(writes);
        theirs.write_all(b"x").unwrap();
        assert_eq!(next(&read), READABLE);
        turning.poller.remove_handle(reads);
    }

    #[test]
    fn what_is_removed_is_freed_on_the_thread_that_turns() {
        let turning = Turning::new();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let ((watch, of_file), (number, of_timer)) = (turning.watch(&ours, READABLE), turning.timer(-1));
        assert!(turning.poller.remove_handle(watch) && turning.poller.remove_timer(number));
        assert_eq!(of_file.recv_timeout(SOON).unwrap(), (-1, turning.thread));
        assert_eq!(of_timer.recv_timeout(SOON).unwrap(), (-1, turning.thread));
        assert!(!turning.poller.remove_timer(number));
    }

    #[test]
    fn a_timer_calls_again_and_again_until_it_is_switched_off() {
        let turning = Turning::new();
        let (number, told) = turning.timer(1);
        assert_eq!([next(&told), next(&told), next(&told)], [0; 3]);
        turning.poller.update_timer(number, -1);
        turning.sleeps();
        nothing(&told);
        turning.poller.update_timer(number, 0);
        assert_eq!(next(&told), 0);
        turning.poller.remove_timer(number);
        while next(&told) != -1 {}
    }

    #[test]
    fn only_what_comes_earlier_wakes_the_thread() {
        let turning = Turning::new();
        let (number, told) = turning.timer(3_600_000);
        let before = turning.sleeps();
        turning.poller.update_timer(number, 7_200_000);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (watch, _) = turning.watch(&ours, READABLE);
        for wanted in [0, READABLE, 0, READABLE] {
            turning.poller.update_handle(watch, wanted);
        }
        nothing(&told);
        assert_eq!(turning.sleeps(), before);
        turning.poller.update_timer(number, 1);
        assert_eq!(next(&told), 0);
    }

    #[test]
    fn what_frees_may_call_back() {
        static POLLER: std::sync::OnceLock<&Poller> = std::sync::OnceLock::new();
        static DONE: AtomicBool = AtomicBool::new(false);
        unsafe extern "C" fn free(_: *mut c_void) {
            DONE.store(!POLLER.get().unwrap().remove_timer(1_000), SeqCst);
        }
        let turning = Turning::new();
        POLLER.set(turning.poller).ok().unwrap();
        let data = Data { opaque: std::ptr::null_mut(), free: Some(free) };
        // SAFETY: it never calls, and frees nothing.
        let number = unsafe { turning.poller.add_timer(-1, timer, data) };
        turning.poller.remove_timer(number);
        let end = Instant::now() + SOON;
        while !DONE.load(SeqCst) {
            assert!(Instant::now() < end, "it hangs");
            thread::yield_now();
        }
    }

    #[test]
    fn a_file_that_is_not_open_is_refused() {
        static FREED: AtomicI32 = AtomicI32::new(0);
        unsafe extern "C" fn free(_: *mut c_void) {
            FREED.fetch_add(1, SeqCst);
        }
        let poller = Poller::new().unwrap();
        let data = Data { opaque: std::ptr::null_mut(), free: Some(free) };
        // SAFETY: it is refused before anything is done with it.
        assert!(unsafe { poller.add_handle(1_000_000, READABLE, file, data) }.is_err());
        assert_eq!(FREED.load(SeqCst), 0, "the data stays the caller's");
    }
}
