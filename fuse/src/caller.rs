//! The process for which a call is answered, so that what it fetches can be counted for it.
//!
//! The kernel names the thread that waits. The thread may be gone once the bytes are there, so its
//! process is looked up when the first request for it begins.

use std::fs;

/// A process of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    /// Its name in `/proc`, such as `git`.
    pub(crate) name: String,
}

#[derive(Clone, Debug)]
enum Caller {
    /// The thread that waits.
    Thread(u32),
    /// The process, if it was found.
    Process(Option<Process>),
}

tokio::task_local! {
    static CALLER: Caller;
}

/// Returns `call` as one for which `thread` waits.
pub(crate) fn for_thread<F: Future>(
    thread: u32,
    call: F,
) -> impl Future<Output = F::Output> + use<F> {
    CALLER.scope(Caller::Thread(thread), call)
}

/// Returns `work`, which becomes a task of its own, as a part of the running call.
pub(crate) fn for_same_caller<F: Future>(work: F) -> impl Future<Output = F::Output> + use<F> {
    CALLER.scope(Caller::Process(current_process()), work)
}

/// Returns the process for which the running call is answered. Returns `None` if there is none, for
/// example in the background, or if it can't be seen, for example in another PID namespace.
pub(crate) fn current_process() -> Option<Process> {
    match CALLER.try_with(Clone::clone).ok()? {
        Caller::Thread(thread) => process_of(thread),
        Caller::Process(process) => process,
    }
}

fn process_of(thread: u32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let mut lines = status.lines();
    let id = lines.find_map(|line| line.strip_prefix("Tgid:"))?;
    let id: u32 = id.trim().parse().ok()?;
    // Other threads of the process may have names of their own.
    let name = fs::read(format!("/proc/{id}/comm")).ok()?;
    let name = String::from_utf8_lossy(&name).trim_end().to_owned();
    Some(Process { id, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_stands_for_its_process_also_in_tasks_after_its_end() {
        assert_eq!(current_process(), None);
        let (sender, thread) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let waiter = std::thread::Builder::new().name("waiter".to_owned());
        let waiter = waiter.spawn(move || {
            let link = fs::read_link("/proc/thread-self").unwrap();
            let id = link.file_name().unwrap().to_str().unwrap().parse::<u32>();
            sender.send(id.unwrap()).unwrap();
            ended.recv().ok();
        });
        let thread = thread.recv().unwrap();

        let process = for_thread(thread, async {
            let task = tokio::spawn(for_same_caller(async { current_process() }));
            drop(end);
            waiter.unwrap().join().unwrap();
            task.await.unwrap()
        });
        let process = process.await.unwrap();

        assert_eq!(process.id, std::process::id());
        assert_ne!(process.name, "waiter");
        assert_eq!(for_thread(0, async { current_process() }).await, None);
    }
}
