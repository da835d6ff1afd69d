//! Compiles a component in a process of its own: `folkmoot-compile-component INPUT OUTPUT`.
//!
//! A server does the same by a hidden subcommand of its own binary.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("usage: folkmoot-compile-component INPUT OUTPUT");
        return ExitCode::from(2);
    };
    folkmoot_host::compile::compile_main(Path::new(input), Path::new(output))
}
