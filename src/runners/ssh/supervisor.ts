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
 * 2. Reads the marker with the proof, so that it is in no pipe when the program starts.
 * 3. Starts the launcher in a new session. The launcher reads the job and writes a line to descriptor 4 before it
 *    replaces itself by the program: `d` if it has made the run's folder. Without a line it has reported why it did not.
 * 4. Starts a child for the lease meanwhile, before the program may use up the account's processes.
 * 5. Skips the line for a watcher, and lets the other child read the lease. That exits when the input ends, or is
 *    killed by SIGALRM when it received nothing for 15 s.
 * 6. Waits for the program or for that child, and reaps orphans meanwhile.
 * 7. Kills its children until none is left, at most for 3 s.
 * 8. Starts the watcher script, which searches for what was not its descendant, and waits for it, at most for 3 s. Without
 *    the run's folder, which lists the files to remove, some may be left. Its environment has the run's variable, by which
 *    the cleanup finds it when the supervisor was killed meanwhile.
 * 9. Kills its children again: the run may have put a program of its own on the account's PATH, which ran as the watcher.
 *    Then it reports, and ends as the program did. It alone has the proof. The app waits 8 s for the report.
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
binmode $_ for *STDIN, *STDERR, $in, $out, $go, $begin;
$SIG{CHLD} = "DEFAULT";
my $byte = "";
sub line {
  my $line = "";
  $line .= $byte while sysread(STDIN, $byte, 1) && $byte ne "\n";
  return $line;
}
my $mark = line();
sub start {
  my $child = fork;
  return $child if defined $child;
  # The launcher has not started the program: it still reads the job.
  kill "KILL", @_;
  print STDERR "Cannot fork\n";
  exit 1;
}
my $program = start();
if ($program == 0) {
  close $in;
  syscall $setsid;
  exec "sh", "-c", $launcher, "ops-run", $id;
  exit 127;
}
my $lease = start($program);
if ($lease == 0) {
  close $_ for $in, $out, $begin;
  exit unless sysread $go, $byte, 1;
  do { alarm 15 } while sysread(STDIN, $byte, 1) && $byte eq ".";
  exit;
}
close $out;
unless (sysread $in, $byte, 1) { waitpid $program, 0; exit 1 }
my $lists = $byte eq "d";
my $folder = ($ENV{TMPDIR} || "/tmp") . "/ops-run-$id";
close $in;
line();
syswrite $begin, "\n";
# By process id, which the kernel may use again later.
my %status;
sub wait_for {
  my $ended = waitpid -1, $WALL | shift;
  $status{$ended} = $? if grep { $_ == $ended && !exists $status{$_} } @_;
  return $ended;
}
my $ended = 0;
$ended = wait_for(0, $program, $lease) until exists $status{$program} || exists $status{$lease} || $ended == -1;
my $silent = ($status{$lease} // 0) & 127;
$silent = $silent == $SIGALRM ? "L" : "";
sub end_children {
  my ($seconds, @pids) = @_;
  my $until = time + $seconds;
  while (time <= $until) {
    my $ended = 1;
    $ended = wait_for($WNOHANG, @pids) while $ended > 0;
    return $! == $ECHILD if $ended == -1;
    open my $list, "<", $children or return 0;
    kill "KILL", split " ", <$list> // "";
    select undef, undef, undef, 0.002;
  }
  return 0;
}
my $clean = end_children(2, $program) && (!$lists || -d $folder);
my $status = $status{$program} // $SIGKILL;
my $search = fork;
if (defined $search && $search == 0) {
  open STDIN, "<", "/dev/null";
  $ENV{OPS_RUN_ID} = $id;
  exec "sh", "-c", $watcher, "ops-watch", "OPS_RUN_ID=$id";
  exit 127;
}
%status = ();
if ($search) {
  my $until = time + 2;
  while (time <= $until && !exists $status{$search}) {
    select undef, undef, undef, 0.002 if wait_for($WNOHANG, $search) == 0;
  }
}
my $found = !$search || ($status{$search} // 1);
my $state = end_children(1) && $clean && !$found ? "V" : "U";
syswrite STDERR, "\x1e$mark$state$silent\n";
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
def line():
    text, byte = b"", os.read(0, 1)
    while byte and byte != b"\n":
        text, byte = text + byte, os.read(0, 1)
    return text
mark = line()
if not supervises:
    shell(launcher, "ops-run", run, watcher)
def start(*others):
    try:
        return os.fork()
    except OSError:
        # The launcher has not started the program: it still reads the job.
        for each in others:
            os.kill(each, signal.SIGKILL)
        os.write(2, b"Cannot fork\n")
        os._exit(1)
go, begin = os.pipe()
program = start()
if program == 0:
    os.setsid()
    os.set_inheritable(sender, True)
    shell(launcher, "ops-run", run)
lease = start(program)
if lease == 0:
    for each in (receiver, sender, begin):
        os.close(each)
    if os.read(go, 1):
        signal.alarm(15)
        while os.read(0, 1) == b".":
            signal.alarm(15)
    os._exit(0)
os.close(sender)
lists = os.read(receiver, 1)
folder = (os.environ.get("TMPDIR") or "/tmp") + "/ops-run-" + run
if not lists:
    os.waitpid(program, 0)
    os._exit(1)
os.close(receiver)
line()
os.write(begin, b"\n")
# By process id, which the kernel may use again later.
statuses = {}
def wait(flags, *pids):
    try:
        ended, how = os.waitpid(-1, flags | WALL)
    except ChildProcessError:
        return -1
    if ended in pids:
        statuses.setdefault(ended, how)
    return ended
while wait(0, program, lease) not in (program, lease, -1):
    pass
how = statuses.get(lease, 0)
silent = b"L" if os.WIFSIGNALED(how) and os.WTERMSIG(how) == signal.SIGALRM else b""
def end_children(seconds, *pids):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended = wait(os.WNOHANG, *pids)
        if ended > 0:
            continue
        if ended == -1:
            return True
        with open(children) as file:
            found = file.read().split()
        for pid in found:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.002)
    return False
clean = end_children(3, program) and (lists != b"d" or os.path.isdir(folder))
status = statuses.get(program, signal.SIGKILL)
try:
    search = os.fork()
except OSError:
    search = -1
if search == 0:
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    env["OPS_RUN_ID"] = run
    shell(watcher, "ops-watch", "OPS_RUN_ID=" + run)
statuses.clear()
until = time.monotonic() + 3
while search > 0 and search not in statuses and time.monotonic() < until:
    if wait(os.WNOHANG, search) == 0:
        time.sleep(0.002)
clean = end_children(1) and clean and statuses.get(search) == 0
os.write(2, b"\x1e" + mark + (b"V" if clean else b"U") + silent + b"\n")
if os.WIFSIGNALED(status):
    if os.WTERMSIG(status) != signal.SIGKILL:
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
    os.kill(os.getpid(), signal.SIGKILL)
os._exit(os.WEXITSTATUS(status))
`;
