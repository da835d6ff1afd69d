//! What the machine did meanwhile: CPU and bytes written of the members, and the disk by itself.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// User and system time.
    cpu: Duration,
    /// Bytes that it caused to be written to the disk.
    written: u64,
    /// Resident memory now, in bytes.
    pub(super) resident: u64,
}

/// What a process used during a measurement.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Used {
    /// The process.
    process: u32,
    /// Cores' worth of CPU.
    cores: f64,
    /// Bytes written to the disk.
    written_bytes: u64,
    /// Resident memory at the end, in bytes.
    resident_bytes: u64,
}

impl Usage {
    /// Reads `/proc` of a process on this machine; zeros if it is gone.
    pub(super) fn of(process: u32) -> Self {
        let text = |name: &str| {
            std::fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default()
        };
        let stat = text("stat");
        // After the name, which may have spaces: state is field 3, utime 14, stime 15 (proc(5)).
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_whitespace()
            .collect();
        let ticks = |field: usize| -> u64 {
            fields
                .get(field - 3)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        let line = |text: &str, name: &str| -> u64 {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        // USER_HZ is 100 on every Linux architecture that we run on.
        let cpu = Duration::from_millis((ticks(14) + ticks(15)) * 10);
        let written = line(&text("io"), "write_bytes:");
        let resident = line(&text("status"), "VmRSS:") * 1024;
        Self {
            cpu,
            written,
            resident,
        }
    }

    /// What was used from `before` until now, over `elapsed`.
    pub(super) fn since(self, before: Self, process: u32, elapsed: Duration) -> Used {
        Used {
            process,
            cores: self.cpu.saturating_sub(before.cpu).as_secs_f64() / elapsed.as_secs_f64(),
            written_bytes: self.written.saturating_sub(before.written),
            resident_bytes: self.resident,
        }
    }
}

impl std::fmt::Display for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "process {}: {:.2} cores, {} KiB written, {} MiB resident",
            self.process,
            self.cores,
            self.written_bytes / 1024,
            self.resident_bytes / (1024 * 1024)
        )
    }
}

/// The disk by itself: appends of 4 KiB to a growing file in `folder`, each followed by
/// `fdatasync`, in microseconds.
///
/// # Errors
///
/// The file can not be written.
pub(super) fn disk(folder: &Path, for_how_long: Duration) -> std::io::Result<Histogram<u64>> {
    let path = folder.join(format!("folkmoot-bench-{}", std::process::id()));
    let mut file = File::options().create_new(true).write(true).open(&path)?;
    let measured = append_and_sync(&mut file, for_how_long);
    std::fs::remove_file(&path)?;
    measured
}

fn append_and_sync(file: &mut File, for_how_long: Duration) -> std::io::Result<Histogram<u64>> {
    let block = [0x5a_u8; 4096];
    let mut histogram = super::drive::new_histogram();
    file.write_all(&block)?;
    file.sync_all()?;
    let mut offset = 4096;
    let began = Instant::now();
    while began.elapsed() < for_how_long {
        let at = Instant::now();
        file.write_all_at(&block, offset)?;
        file.sync_data()?;
        super::drive::record(&mut histogram, at.elapsed());
        offset += 4096;
    }
    Ok(histogram)
}
