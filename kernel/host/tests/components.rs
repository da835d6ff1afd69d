//! Components are compiled in a child process, kept on disk, and compiled again when what was kept
//! is not whole.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail as its tests may"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use folkmoot_host::compile::CompileError;
use folkmoot_host::{Compiler, Completion, Components, ExamineError, PluginService, Retries};
use folkmoot_proto::Digest;
use support::{component, sandbox};

/// Compiles with the real child process.
fn child() -> Compiler {
    Compiler::Child {
        program: env!("CARGO_BIN_EXE_folkmoot-compile-component").into(),
        arguments: Vec::new(),
    }
}

/// A compiler that would fail if it were asked.
fn no_compiler() -> Compiler {
    Compiler::Child {
        program: "/nowhere/compiler".into(),
        arguments: Vec::new(),
    }
}

fn in_folder(compiler: Compiler, folder: &Path) -> Components {
    Components::in_folder(sandbox(), compiler, folder).expect("a folder")
}

fn prepare(components: &Components, bytes: &[u8]) -> Result<(), CompileError> {
    let prepared = components.prepare(Digest::of(bytes), bytes, &|| false);
    prepared.map(|_| ())
}

/// A service that tries again at once; what it has done goes to `done`.
fn serve(components: Arc<Components>, done: Sender<Completion>) -> PluginService {
    let retries = Retries {
        pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(2),
    };
    PluginService::start(components, 1024 * 1024, retries, move |completion| {
        // The receiver is there until the end of the test.
        let _ = done.send(completion);
    })
    .expect("a thread")
}

fn next(done: &Receiver<Completion>) -> Completion {
    done.recv_timeout(Duration::from_secs(60))
        .expect("an answer")
}

/// The one file in the folder that has this extension.
fn file(folder: &Path, extension: &str) -> std::path::PathBuf {
    let files = fs::read_dir(folder).expect("a folder");
    let mut paths = files.map(|file| file.expect("a file").path());
    paths
        .find(|path| path.extension().is_some_and(|found| found == extension))
        .unwrap_or_else(|| panic!("a file .{extension}"))
}

#[test]
fn a_child_compiles_and_the_code_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = component("counter");
    let digest = Digest::of(&bytes);
    let components = in_folder(child(), folder.path());
    assert!(!components.has(digest));
    prepare(&components, &bytes).expect("it compiles");
    assert!(components.has(digest));
    // After a restart nothing is compiled.
    let again = in_folder(no_compiler(), folder.path());
    prepare(&again, &bytes).expect("it is on disk");
    assert!(again.has(digest));
}

#[test]
fn code_that_is_not_whole_is_compiled_again() {
    let bytes = component("counter");
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("cwasm", |code| {
            let middle = code.len() / 2;
            code[middle] ^= 1;
        }),
        ("cwasm", |code| code.truncate(code.len() / 2)),
        ("sum", |sum| sum.truncate(10)),
        ("sum", |sum| sum[0] ^= 1),
    ];
    for (extension, damage) in damages {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(&in_folder(Compiler::Here, folder.path()), &bytes).expect("it compiles");
        let path = file(folder.path(), extension);
        let mut content = fs::read(&path).expect("a file");
        damage(&mut content);
        fs::write(&path, content).expect("a file");
        let error = prepare(&in_folder(no_compiler(), folder.path()), &bytes);
        assert!(error.is_err(), "a damaged .{extension} was used");
        prepare(&in_folder(Compiler::Here, folder.path()), &bytes).expect("it compiles");
        prepare(&in_folder(no_compiler(), folder.path()), &bytes).expect("it is whole again");
    }
}

#[test]
fn the_folder_belongs_to_this_user_alone() {
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path().join("new");
    let mode = || {
        let metadata = fs::metadata(&folder).expect("a folder");
        metadata.permissions().mode() & 0o777
    };
    in_folder(Compiler::Here, &folder);
    assert_eq!(mode(), 0o700);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("mine");
    in_folder(Compiler::Here, &folder);
    assert_eq!(mode(), 0o700);
}

#[test]
fn a_forgotten_component_is_gone_from_memory_and_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = component("counter");
    let components = in_folder(Compiler::Here, folder.path());
    prepare(&components, &bytes).expect("it compiles");
    components.forget(Digest::of(&bytes));
    assert!(!components.has(Digest::of(&bytes)));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn a_component_that_does_not_compile_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = prepare(&in_folder(child(), folder.path()), b"\0asm\x0d\0\x01\0\xff")
        .expect_err("no component");
    assert!(
        matches!(&error, CompileError::Refused { reason } if !reason.is_empty()),
        "{error}"
    );
    assert_eq!(
        fs::read_dir(folder.path()).expect("a folder").count(),
        0,
        "nothing is left over"
    );
}

#[test]
fn a_child_that_dies_or_can_not_be_started_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = component("counter");
    for (program, arguments) in [
        ("/nowhere/compiler", vec![]),
        (
            "/bin/sh",
            vec!["-c".into(), "echo out of luck >&2; exit 7".into()],
        ),
        ("/bin/sh", vec!["-c".into(), "kill -9 $$".into()]),
        // It says that it is done and has written nothing.
        ("/bin/true", vec![]),
    ] {
        let compiler = Compiler::Child {
            program: program.into(),
            arguments,
        };
        let error = prepare(&in_folder(compiler, folder.path()), &bytes).expect_err(program);
        assert!(
            matches!(
                error,
                CompileError::Child { .. } | CompileError::File { .. }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_compilation_is_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let compiler = Compiler::Child {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), "exec sleep 60".into()],
    };
    let components = in_folder(compiler, folder.path());
    let bytes = component("counter");
    let error = components
        .prepare(Digest::of(&bytes), &bytes, &|| true)
        .expect_err("stopped");
    assert!(matches!(error, CompileError::Stopped { .. }), "{error}");
}

#[test]
fn the_service_answers_in_order_and_has_components_ready() {
    let components = Arc::new(Components::in_memory(sandbox()));
    let (sender, done) = crossbeam_channel::unbounded();
    let service = serve(Arc::clone(&components), sender);
    let counter = Bytes::from(component("counter"));
    let lock = Bytes::from(component("lock"));
    let (counter_digest, lock_digest) = (Digest::of(&counter), Digest::of(&lock));
    service.submit_examine(counter_digest, counter);
    service.submit_compile(lock_digest, lock);
    service.submit_examine(Digest::of(b"x"), Bytes::from_static(b"x"));
    match next(&done) {
        Completion::Examined { digest, result } => {
            assert_eq!(digest, counter_digest);
            let manifest = result.expect("a plugin");
            assert_eq!(manifest.name, "counter");
            assert!(manifest.json.starts_with('{'));
        }
        other => panic!("the examination comes first, not {other:?}"),
    }
    match next(&done) {
        Completion::Compiled { digest, result } => {
            assert_eq!(digest, lock_digest);
            result.expect("it compiles");
        }
        other => panic!("the compilation comes second, not {other:?}"),
    }
    assert!(matches!(
        next(&done),
        Completion::Examined { result: Err(_), .. }
    ));
    assert!(components.has(counter_digest));
    assert!(components.has(lock_digest));
    service.submit_forget(lock_digest);
    drop(service);
}

/// A compiler that is killed until it has been started `failures` times; the starts are counted in
/// a file.
fn killed_at_first(failures: u32, starts: &Path) -> Compiler {
    let compiler = env!("CARGO_BIN_EXE_folkmoot-compile-component");
    let starts = starts.display();
    let script = format!(
        "echo >> {starts}; [ $(wc -l < {starts}) -gt {failures} ] || kill -9 $$; \
         exec {compiler} \"$@\""
    );
    Compiler::Child {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into(), "compiler".into()],
    }
}

fn starts(file: &Path) -> usize {
    fs::read_to_string(file).expect("a file").lines().count()
}

#[test]
fn what_fails_for_a_reason_of_the_machine_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let count = folder.path().join("starts");
    let counter = Bytes::from(component("counter"));
    let lock = Bytes::from(component("lock"));
    let (counter_digest, lock_digest) = (Digest::of(&counter), Digest::of(&lock));
    let compiler = killed_at_first(3, &count);
    let components = Arc::new(in_folder(compiler, &folder.path().join("compiled")));
    let (sender, done) = crossbeam_channel::unbounded();
    let service = serve(Arc::clone(&components), sender);
    service.submit_compile(lock_digest, lock);
    service.submit_examine(counter_digest, counter);
    for _ in 0..2 {
        match next(&done) {
            Completion::Compiled { digest, result } => {
                assert_eq!(digest, lock_digest);
                result.expect("the machine is well again");
            }
            Completion::Examined { digest, result } => {
                assert_eq!(digest, counter_digest);
                result.expect("the machine is well again");
            }
        }
    }
    assert_eq!(
        starts(&count),
        5,
        "three that were killed, and one for each"
    );
    assert!(components.has(lock_digest));
    drop(service);
}

#[test]
fn a_verdict_about_a_component_is_final() {
    let folder = tempfile::tempdir().expect("a folder");
    let count = folder.path().join("starts");
    let mut damaged = component("counter");
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let damaged = Bytes::from(damaged);
    let compiler = killed_at_first(0, &count);
    let components = Arc::new(in_folder(compiler, &folder.path().join("compiled")));
    let (sender, done) = crossbeam_channel::unbounded();
    let service = serve(components, sender);
    service.submit_compile(Digest::of(&damaged), damaged.clone());
    match next(&done) {
        Completion::Compiled { result, .. } => {
            let error = result.expect_err("damaged");
            assert!(!error.is_of_the_machine(), "{error}");
        }
        other => panic!("a compilation was asked for, not {other:?}"),
    }
    service.submit_examine(Digest::of(&damaged), damaged);
    match next(&done) {
        Completion::Examined { result, .. } => {
            let error = result.expect_err("damaged");
            assert!(matches!(error, ExamineError::Compile(_)), "{error}");
        }
        other => panic!("an examination was asked for, not {other:?}"),
    }
    assert_eq!(starts(&count), 2);
    drop(service);
}
