package supervisor

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// child is one server process; its output goes to a file of its own.
type child struct {
	name     string
	command  *exec.Cmd
	logPath  string
	logStart int64
	done     chan struct{}
}

// startChild runs a subcommand of binary and pokes ends when it is over.
//
// The child is killed by the kernel when the calling thread ends, so that a
// supervisor killed by SIGKILL leaves nothing: the caller must be locked to its
// thread and must not return to a thread that may end. Its own process group
// keeps a terminal's Ctrl-C away from it: the order of the end is ours.
func startChild(binary, name, logPath string, arguments []string, ends chan<- struct{}) (*child, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	logStart, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	command := exec.Command(binary, append([]string{name}, arguments...)...)
	command.Stdout = log
	command.Stderr = log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	started := &child{name: name, command: command, logPath: logPath, logStart: logStart, done: make(chan struct{})}
	go started.wait(ends)
	return started, nil
}

func (c *child) wait(ends chan<- struct{}) {
	_ = c.command.Wait() // how it ended is in ProcessState
	close(c.done)
	select {
	case ends <- struct{}{}:
	default: // a poke is pending already
	}
}

// kill returns when the process is gone.
func (c *child) kill() {
	_ = c.command.Process.Kill() // fails only if it has ended
	<-c.done
}

func (c *child) hasEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *child) foundPortTaken() bool {
	return c.hasEnded() && strings.Contains(c.output(), "address already in use")
}

// failure describes an end that nobody asked for, with the last words.
func (c *child) failure() error {
	return fmt.Errorf("%s ended by itself: %v; the end of %s:\n%s",
		c.name, c.command.ProcessState, c.logPath, lastLines(c.output(), 20))
}

// output is what this process wrote; the file may hold earlier ones' too.
func (c *child) output() string {
	log, err := os.Open(c.logPath)
	if err != nil {
		return err.Error()
	}
	defer log.Close()
	size, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(io.NewSectionReader(log, c.logStart, size-c.logStart))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
