//! Tunes the C library's allocator for training.

/// Keeps freed memory in the process. libtorch frees blocks of tens of MB and allocates them again
/// many times a step; by default glibc gives each back to the kernel, and zeroing the pages again
/// can take half of a training step. Call it before threads start. Does nothing without glibc.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(
            unsafe_code,
            reason = "mallopt is a C function; it only sets parameters of the allocator"
        )]
        // SAFETY: mallopt takes two integers, touches no memory of ours, and is called before other
        // threads start.
        unsafe {
            // Never use mmap for a block, never trim the heap.
            libc::mallopt(libc::M_MMAP_MAX, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
            libc::mallopt(libc::M_TOP_PAD, 256 << 20);
        }
    }
}

/// Gives freed memory back to the kernel once, for example what images took while they were read:
/// it lies with the threads that read them, where training would not find it. Does nothing without
/// glibc.
pub fn give_back_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(
            unsafe_code,
            reason = "malloc_trim is a C function; it only gives free pages back"
        )]
        // SAFETY: malloc_trim takes an integer, locks what it looks at, and touches no memory that
        // is in use.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
