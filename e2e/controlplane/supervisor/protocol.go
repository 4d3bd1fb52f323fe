package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// announcement is the first line on stdout.
type announcement struct {
	Ready      bool   `json:"ready"`
	Kubeconfig string `json:"kubeconfig"`
	Audit      string `json:"audit,omitempty"`
	Server     string `json:"server"`
	CA         string `json:"ca"`
	Dir        string `json:"dir"`
}

// reply answers one command line.
type reply struct {
	OK      bool   `json:"ok"`
	Command string `json:"command"`
	Error   string `json:"error,omitempty"`
}

// apiserverSwitch is what commands can do; a control plane, or a test's stand-in.
type apiserverSwitch interface {
	killAPIServer() error
	restartAPIServer(context.Context) error
}

func (p *plane) announcement() announcement {
	text := announcement{
		Ready:      true,
		Kubeconfig: p.folder.adminKubeconfig(),
		Server:     p.server(),
		CA:         p.folder.ca(),
		Dir:        p.folder.path,
	}
	if p.options.Audit {
		text.Audit = p.folder.auditLog()
	}
	return text
}

func announce(p *plane, stdout io.Writer) error {
	if p.options.PrintExport {
		_, err := fmt.Fprintln(stdout, exportLine(p.folder.adminKubeconfig()))
		return err
	}
	return json.NewEncoder(stdout).Encode(p.announcement())
}

// exportLine survives any path in any POSIX shell.
func exportLine(kubeconfig string) string {
	return "export KUBECONFIG='" + strings.ReplaceAll(kubeconfig, "'", `'\''`) + "'"
}

// readLines ends everything when the other side of stdin is gone, without
// waiting for earlier commands: whoever started us may have died without a word.
func readLines(stdin io.Reader, lines chan<- string, end func()) {
	scanner := bufio.NewScanner(stdin)
	for scanner.Scan() {
		lines <- scanner.Text()
	}
	end()
}

// serve obeys until it is told to stop or a server ends by itself.
func serve(ctx context.Context, plane *plane, lines <-chan string, stdout io.Writer) error {
	answers := json.NewEncoder(stdout)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-plane.ends:
			if dead := plane.died(); dead != nil {
				return dead.failure()
			}
		case line := <-lines:
			command := strings.TrimSpace(line)
			if command == "stop" {
				plane.stop()
				return answers.Encode(reply{OK: true, Command: command})
			}
			if err := answers.Encode(obey(ctx, plane, command)); err != nil {
				return err
			}
		}
	}
}

func obey(ctx context.Context, apiserver apiserverSwitch, command string) reply {
	var err error
	switch command {
	case "kill-apiserver":
		err = apiserver.killAPIServer()
	case "start-apiserver":
		err = apiserver.restartAPIServer(ctx)
	default:
		err = errors.New("unknown command; there are kill-apiserver, start-apiserver and stop")
	}
	if err != nil {
		return reply{Command: command, Error: err.Error()}
	}
	return reply{OK: true, Command: command}
}
