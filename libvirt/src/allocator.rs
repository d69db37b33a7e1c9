//! The C allocator, which libvirt's code and ours share.

/// Has glibc's allocator keep no more than so many arenas; other allocators are left alone (`mallopt(3)`, `M_ARENA_MAX`). By default
/// it makes one for each thread that allocates, up to eight a CPU, and each keeps what it once needed: of a process with
/// a few dozen threads that call libvirt now and then, that is several MiB which nobody uses. To be called before there are
/// threads.
pub fn limit_arenas(arenas: u16) {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers, and touches no memory of ours; whether it has an effect isn't needed to be known.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas.into());
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = arenas;
}

/// Has glibc's allocator give pages in which nothing is in use any more back to the system (`malloc_trim(3)`). By itself it gives back
/// only what lies behind everything that is in use. Takes about a millisecond for some ten MiB, in which others that allocate wait.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and touches no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
