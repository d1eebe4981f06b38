/**
 * The supervisor of a run on a host: a Perl program, or the same in Python 3. It starts the launcher, is the ancestor
 * of all processes of the run, and ends them all. A POSIX shell cannot do this.
 *
 * As a "child subreaper" (prctl(2), Linux 3.4) it becomes the parent of every descendant whose own parent has ended,
 * whatever the descendant did with its session, environment, descriptors, folder and name. When it has killed its
 * children until the kernel reports that it has none (ECHILD), no descendant is left in the process tree of this PID
 * namespace. It is not dumpable, so that no process of the same account can read the proof from its memory or trace it.
 * A process that kills it ends it without a report, which the app never counts as verified.
 *
 * The order in both programs:
 * 1. Becomes a subreaper. Where that is impossible, it replaces itself by the launcher, which then starts the watcher.
 * 2. Starts a child for the lease, before the program may have used up the account's processes.
 * 3. Starts the launcher in a new session. The launcher reads the job and writes a line to descriptor 4 before it
 *    replaces itself by the program; without that line it has reported why it did not.
 * 4. Reads the marker with the proof, and lets the other child read the lease. That exits when the input ends, or is
 *    killed by SIGALRM when it received nothing for 15 s.
 * 5. Waits for the program or for that child, and reaps orphans meanwhile.
 * 6. Kills its children until none is left, at most for 4 s: the app waits 8 s for a report.
 * 7. Starts the watcher script, and ends as the program did. The watcher is a shell, whose memory and input every process
 *    of the account can read. It therefore receives the marker with the proof only when no process of the run is left.
 */

/** Arguments: `ops-supervise` with the run's id, the launcher, the watcher, the fallback script and its Python program. */
export const PERL_SUPERVISOR = String.raw`
# An error must not look like the exit of the program.
$SIG{__DIE__} = sub { kill "KILL", $$ };
my ($PR_SET_CHILD_SUBREAPER, $PR_SET_DUMPABLE) = (36, 4);
my ($WNOHANG, $WALL, $ECHILD, $SIGKILL, $SIGALRM) = (1, 0x40000000, 10, 9, 14);
my ($name, $launcher, $watcher, $fallback, $python) = @ARGV;
my ($id) = $name =~ /(\S+)$/;
# From the ELF header, since loading Config takes longer than all else here: 64 bits, x86-64 (62) or AArch64 (183).
my %calls = ("2 62" => { prctl => 157, setsid => 112 }, "2 183" => { prctl => 167, setsid => 157 });
my $header = "";
if (open my $self, "<", "/proc/self/exe") { binmode $self; sysread $self, $header, 20; close $self }
my ($prctl, $setsid) = @{$calls{join " ", unpack "x4 C x13 v", $header . pack "x20"} || {}}{"prctl", "setsid"};
my $children = "/proc/self/task/$$/children";
my ($in, $out);
$^F = 4;
unless ($^O eq "linux" && $prctl && -r $children && pipe($in, $out) && fileno($out) == 4
    && syscall($prctl, $PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 && syscall($prctl, $PR_SET_DUMPABLE, 0, 0, 0, 0) == 0) {
  exec "sh", "-c", $fallback, "ops-run", $id, $launcher, $watcher, $python;
  exit 127;
}
# PERL5OPT may declare all files to be UTF-8: sysread and syswrite refuse those.
pipe my $go, my $begin;
binmode $_ for *STDIN, $in, $out, $go, $begin;
$SIG{CHLD} = "DEFAULT";
sub start {
  my $child = fork;
  return $child if defined $child;
  print STDERR "Cannot fork\n";
  exit 1;
}
my $byte = "";
my $lease = start();
if ($lease == 0) {
  close $_ for $in, $out, $begin;
  exit unless sysread $go, $byte, 1;
  do { alarm 15 } while sysread(STDIN, $byte, 1) && $byte eq ".";
  exit;
}
my $program = start();
if ($program == 0) {
  close $in;
  syscall $setsid;
  exec "sh", "-c", $launcher, "ops-run", $id;
  exit 127;
}
close $out;
unless (sysread $in, $byte, 1) { waitpid $program, 0; exit 1 }
close $in;
my $mark = "";
$mark .= $byte while sysread(STDIN, $byte, 1) && $byte ne "\n";
syswrite $begin, "\n";
my $status = $SIGKILL;
my ($ended, $silent) = (0, "");
until ($ended == $program || $ended == $lease || $ended == -1) {
  $ended = waitpid -1, $WALL;
  $status = $? if $ended == $program;
  $silent = "L" if $ended == $lease && ($? & 127) == $SIGALRM;
}
my $state = "U";
my $until = time + 4;
while (time <= $until) {
  while (($ended = waitpid -1, $WALL | $WNOHANG) > 0) { $status = $? if $ended == $program }
  if ($ended == -1) { $state = "V" if $! == $ECHILD; last }
  open my $list, "<", $children or last;
  kill "KILL", split " ", <$list> // "";
  select undef, undef, undef, 0.002;
}
pipe $in, $out;
binmode $out;
syswrite $out, ($state eq "V" ? $mark : "") . "\n";
close $out;
defined(my $report = fork) or kill "KILL", $$;
if ($report == 0) {
  open STDIN, "<&", $in;
  exec "sh", "-c", $watcher, "ops-watch", "OPS_RUN_ID=$id", "", $state, $silent;
  exit 127;
}
waitpid $report, 0;
if (my $signal = $status & 127) {
  kill $signal, $$;
  kill "KILL", $$;
}
exit $status >> 8;
`;

/** Arguments: `ops-supervise` with the run's id, the launcher, the watcher. */
export const PYTHON_SUPERVISOR = String.raw`
import os, signal, sys, time
name, launcher, watcher = sys.argv[1:]
run = name.split(" ")[-1]
PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, WALL = 36, 4, 0x40000000
# An error must not look like the exit of the program.
sys.excepthook = lambda *error: os.kill(os.getpid(), signal.SIGKILL)
# Python ignores the first two signals, and may set LC_CTYPE: the program must not inherit that.
for each in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
    signal.signal(each, signal.SIG_DFL)
env = os.environ
children = "/proc/self/task/%d/children" % os.getpid()
try:
    with open("/proc/self/environ", "rb") as file:
        env = dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry)
    import ctypes
    prctl = ctypes.CDLL(None).prctl
    receiver, sender = os.pipe()
    able = os.access(children, os.R_OK) and sender == 4
    supervises = able and prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 and prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
except Exception:
    supervises = False
def shell(*words):
    os.execvpe("sh", ("sh", "-c") + words, env)
if not supervises:
    shell(launcher, "ops-run", run, watcher)
def start():
    try:
        return os.fork()
    except OSError:
        os.write(2, b"Cannot fork\n")
        os._exit(1)
go, begin = os.pipe()
lease = start()
if lease == 0:
    for each in (receiver, sender, begin):
        os.close(each)
    if os.read(go, 1):
        signal.alarm(15)
        while os.read(0, 1) == b".":
            signal.alarm(15)
    os._exit(0)
program = start()
if program == 0:
    os.setsid()
    os.set_inheritable(sender, True)
    shell(launcher, "ops-run", run)
os.close(sender)
if not os.read(receiver, 1):
    os.waitpid(program, 0)
    os._exit(1)
os.close(receiver)
mark = b""
byte = os.read(0, 1)
while byte and byte != b"\n":
    mark += byte
    byte = os.read(0, 1)
os.write(begin, b"\n")
status = signal.SIGKILL
silent = ""
def wait(flags):
    global status, silent
    try:
        ended, how = os.waitpid(-1, flags | WALL)
    except ChildProcessError:
        return -1
    if ended == program:
        status = how
    if ended == lease and os.WIFSIGNALED(how) and os.WTERMSIG(how) == signal.SIGALRM:
        silent = "L"
    return ended
while wait(0) not in (program, lease, -1):
    pass
state = "U"
until = time.monotonic() + 4
while time.monotonic() < until:
    ended = wait(os.WNOHANG)
    if ended > 0:
        continue
    if ended == -1:
        state = "V"
        break
    with open(children) as file:
        pids = file.read().split()
    for pid in pids:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass
    time.sleep(0.002)
receiver, sender = os.pipe()
os.write(sender, (mark if state == "V" else b"") + b"\n")
os.close(sender)
try:
    report = os.fork()
except OSError:
    os.kill(os.getpid(), signal.SIGKILL)
if report == 0:
    os.dup2(receiver, 0)
    shell(watcher, "ops-watch", "OPS_RUN_ID=" + run, "", state, silent)
os.waitpid(report, 0)
if os.WIFSIGNALED(status):
    if os.WTERMSIG(status) != signal.SIGKILL:
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
    os.kill(os.getpid(), signal.SIGKILL)
os._exit(os.WEXITSTATUS(status))
`;
