package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds waits for what must happen; nothing is measured by it.
const patience = time.Minute

// running is a supervisor with stand-in servers, as a process of its own.
type running struct {
	t       *testing.T
	dir     string
	pids    string
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	stderr  bytes.Buffer
}

func startUp(t *testing.T, troubles string, flags ...string) *running {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, dir: filepath.Join(t.TempDir(), "plane"), pids: t.TempDir()}
	// One that does not end is ended, so that its test fails and the others run.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	r.command = exec.CommandContext(ctx, binary, append([]string{"up", r.dir}, flags...)...)
	r.command.Env = append(os.Environ(), pidFolder+"="+r.pids, trouble+"="+troubles)
	r.command.Stderr = &r.stderr
	r.stdin, err = r.command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := r.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.stdout = bufio.NewReader(stdout)
	if err := r.command.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *running) line() string {
	r.t.Helper()
	line, err := r.stdout.ReadString('\n')
	if err != nil {
		r.t.Fatalf("no line: %v\n%s", err, r.stderr.String())
	}
	return strings.TrimSuffix(line, "\n")
}

func (r *running) ready() announcement {
	r.t.Helper()
	var said announcement
	if err := json.Unmarshal([]byte(r.line()), &said); err != nil || !said.Ready {
		r.t.Fatalf("%+v %v", said, err)
	}
	return said
}

func (r *running) say(command string) reply {
	r.t.Helper()
	if _, err := io.WriteString(r.stdin, command+"\n"); err != nil {
		r.t.Fatal(err)
	}
	var answer reply
	if err := json.Unmarshal([]byte(r.line()), &answer); err != nil {
		r.t.Fatal(err)
	}
	return answer
}

// exitCode waits for the end; nothing of it may be left then.
func (r *running) exitCode() int {
	r.t.Helper()
	_, _ = io.Copy(io.Discard, r.stdout)
	_ = r.command.Wait()
	r.nothingIsLeft()
	return r.command.ProcessState.ExitCode()
}

func (r *running) nothingIsLeft() {
	r.t.Helper()
	pids := pidsOf(r.t, r.pids, "*")
	eventually(r.t, "the end of all servers", func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool { return isAlive(r.t, pid) })
	})
}

func (r *running) hasEtcdData() bool {
	_, err := os.Stat(filepath.Join(r.dir, "etcd"))
	return err == nil
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func accepts(server string) bool {
	connection, err := net.Dial("tcp4", strings.TrimPrefix(server, "https://"))
	if err != nil {
		return false
	}
	connection.Close()
	return true
}

func TestTheAPIServerIsLostAndRegainedAlone(t *testing.T) {
	r := startUp(t, "")
	said := r.ready()
	others := append(pidsOf(t, r.pids, "etcd"), pidsOf(t, r.pids, "kube-controller-manager")...)
	r.say("kill-apiserver")
	for _, pid := range others {
		if !isAlive(t, pid) {
			t.Errorf("etcd or the controller-manager (%d) is gone", pid)
		}
	}
	r.say("start-apiserver")

	steps := []struct {
		command string
		ok      bool
		accepts bool
	}{
		{"start-apiserver", false, true},
		{"kill-apiserver", true, false},
		{"kill-apiserver", false, false},
		{"start-apiserver", true, true},
		{"nonsense", false, true},
		{" kill-apiserver ", true, false},
		{"start-apiserver", true, true},
	}
	for _, step := range steps {
		if answer := r.say(step.command); answer.OK != step.ok || answer.OK == (answer.Error != "") {
			t.Errorf("%q: %+v", step.command, answer)
		}
		if accepts(said.Server) != step.accepts {
			t.Errorf("after %q the API server accepts connections: %v", step.command, !step.accepts)
		}
	}
	for name, want := range map[string]int{"etcd": 1, "kube-apiserver": 4, "kube-controller-manager": 4} {
		if got := len(pidsOf(t, r.pids, name)); got != want {
			t.Errorf("%d processes were %s", got, name)
		}
	}
	if answer := r.say("stop"); !answer.OK {
		t.Errorf("%+v", answer)
	}
	if code := r.exitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, r.stderr.String())
	}
}

func TestWhenStopIsAnsweredEverythingIsGone(t *testing.T) {
	r := startUp(t, "")
	r.ready()
	pids := pidsOf(t, r.pids, "*")
	r.say("stop")
	if len(pids) != 3 || slices.ContainsFunc(pids, func(pid int) bool { return isAlive(t, pid) }) || r.hasEtcdData() {
		t.Errorf("%v, etcd data: %v", pids, r.hasEtcdData())
	}
}

func TestTheEndOfStdinEndsEverything(t *testing.T) {
	r := startUp(t, "")
	r.ready()
	r.stdin.Close()
	if code := r.exitCode(); code != 0 || r.hasEtcdData() {
		t.Errorf("exit code %d, etcd data: %v", code, r.hasEtcdData())
	}
}

func TestEtcdsDataStaysIfAskedTo(t *testing.T) {
	r := startUp(t, "", "--keep")
	r.ready()
	r.stdin.Close()
	if code := r.exitCode(); code != 0 || !r.hasEtcdData() {
		t.Errorf("exit code %d, etcd data: %v", code, r.hasEtcdData())
	}
}

func TestDetachedOnlyASignalEndsIt(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			r := startUp(t, "", "--detach-stdin", "--print-export")
			r.stdin.Close()
			if got, want := r.line(), exportLine(filepath.Join(r.dir, "admin.kubeconfig")); got != want {
				t.Errorf("%q, not %q", got, want)
			}
			if err := r.command.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if code := r.exitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestItsOwnSIGKILLLeavesNothing(t *testing.T) {
	r := startUp(t, "")
	r.ready()
	r.say("kill-apiserver")
	r.say("start-apiserver")
	if err := r.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.exitCode()
}

func TestATerminalsSignalDoesNotReachTheServers(t *testing.T) {
	r := startUp(t, "")
	r.ready()
	for _, pid := range pidsOf(t, r.pids, "*") {
		if group, err := syscall.Getpgid(pid); err != nil || group != pid {
			t.Errorf("server %d is in group %d (%v)", pid, group, err)
		}
	}
}

func TestAServerThatEndsByItselfEndsEverythingAndIsNamed(t *testing.T) {
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		t.Run(name, func(t *testing.T) {
			r := startUp(t, "")
			r.ready()
			if err := syscall.Kill(pidsOf(t, r.pids, name)[0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if code := r.exitCode(); code != 1 || !strings.Contains(r.stderr.String(), name+" ended by itself: signal: killed") {
				t.Errorf("exit code %d\n%s", code, r.stderr.String())
			}
		})
	}
}

func TestAServerThatCannotStartIsNamedWithItsLastWords(t *testing.T) {
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		t.Run(name, func(t *testing.T) {
			r := startUp(t, name+"="+crash)
			if code := r.exitCode(); code != 1 {
				t.Errorf("exit code %d", code)
			}
			for _, words := range []string{name + " ended by itself: exit status 1", name + ".log", "I have had enough"} {
				if !strings.Contains(r.stderr.String(), words) {
					t.Errorf("%q is missing in\n%s", words, r.stderr.String())
				}
			}
			if got := len(pidsOf(t, r.pids, name)); got != 1 {
				t.Errorf("started %d times", got)
			}
		})
	}
}

func TestATakenPortIsReplacedByAnother(t *testing.T) {
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		t.Run(name, func(t *testing.T) {
			r := startUp(t, name+"="+portTakenOnce)
			if said := r.ready(); !accepts(said.Server) {
				t.Errorf("%s does not answer", said.Server)
			}
			if got := len(pidsOf(t, r.pids, name)); got != 2 {
				t.Errorf("started %d times", got)
			}
		})
	}
}

func TestTakenPortsAreNotTriedForEver(t *testing.T) {
	r := startUp(t, "kube-apiserver="+portAlwaysGone)
	if code := r.exitCode(); code != 1 || !strings.Contains(r.stderr.String(), "address already in use") {
		t.Errorf("exit code %d\n%s", code, r.stderr.String())
	}
	if got := len(pidsOf(t, r.pids, "kube-apiserver")); got != portAttempts {
		t.Errorf("started %d times", got)
	}
}

func TestTheEndOfStdinEndsAlsoAStartThatGetsNowhere(t *testing.T) {
	r := startUp(t, "kube-apiserver="+neverReady)
	eventually(t, "the API server", func() bool { return len(pidsOf(t, r.pids, "kube-apiserver")) == 1 })
	if _, err := io.WriteString(r.stdin, "kill-apiserver\nstart-apiserver\n"); err != nil {
		t.Fatal(err)
	}
	r.stdin.Close()
	if code := r.exitCode(); code != 1 || !strings.Contains(r.stderr.String(), "stopped before it was ready") {
		t.Errorf("exit code %d\n%s", code, r.stderr.String())
	}
}
