// Package supervisor runs etcd, kube-apiserver and kube-controller-manager as
// children of one process, so that a test can have a cluster of its own, can
// lose the API server alone, and leaves nothing behind.
//
// It knows no Kubernetes package: its tests build and run in a second.
package supervisor

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// Options is what `controlplane up` was asked for.
type Options struct {
	Dir                string
	Audit              bool
	EmulatedVersion    string
	MinRequestTimeout  int
	APIServerArguments []string
	DetachStdin        bool
	PrintExport        bool
	Keep               bool

	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Run returns after everything that it started is dead. It returns an error if
// the control plane did not become ready or lost a server by itself.
func Run(options Options) error {
	// The kernel ends the children when the *thread* that started them ends
	// (see startChild). All starts happen on this goroutine; locked, its thread
	// lives as long as the process.
	runtime.LockOSThread()
	syscall.Umask(0o077)

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	lines := make(chan string, 64) // more than anybody sends ahead: the end of stdin must be seen at any time
	if !options.DetachStdin {
		go readLines(options.Stdin, lines, cancel)
	}

	folder, err := claimFolder(options.Dir)
	if err != nil {
		return err
	}
	defer folder.release()
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	plane := newPlane(options, folder, binary)
	defer plane.stop()
	if err := plane.start(ctx); err != nil {
		return err
	}
	if err := announce(plane, options.Stdout); err != nil {
		return err
	}
	return serve(ctx, plane, lines, options.Stdout)
}

// progress tells people what happens; programs read stdout.
func (o Options) progress(format string, arguments ...any) {
	fmt.Fprintf(o.Stderr, "controlplane: "+format+"\n", arguments...)
}
