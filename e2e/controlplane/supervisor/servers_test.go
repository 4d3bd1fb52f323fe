package supervisor

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The test binary plays all parts: called with the name of a server it is that
// server's stand-in, called with `up` it is the supervisor itself.

// pidFolder names the folder in which each stand-in leaves its process id.
const pidFolder = "CONTROLPLANE_TEST_PIDS"

// Trouble that a stand-in makes, as NAME=TROUBLE.
const (
	trouble        = "CONTROLPLANE_TEST_TROUBLE"
	portTakenOnce  = "port-taken-once"
	portAlwaysGone = "port-always-taken"
	neverReady     = "never-ready"
	crash          = "crash"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "etcd", "kube-apiserver", "kube-controller-manager":
			serveStandIn(os.Args[1], os.Args[2:])
			return
		case "up":
			runUp(os.Args[2:])
			return
		}
	}
	os.Exit(m.Run())
}

func runUp(arguments []string) {
	options := Options{Dir: arguments[0], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	for _, argument := range arguments[1:] {
		switch argument {
		case "--keep":
			options.Keep = true
		case "--detach-stdin":
			options.DetachStdin = true
		case "--print-export":
			options.PrintExport = true
		}
	}
	if err := Run(options); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// serveStandIn answers 200 on the port that its flags name; the API server only
// to whoever shows the first token of its file.
func serveStandIn(name string, arguments []string) {
	pids := os.Getenv(pidFolder)
	attempts, _ := filepath.Glob(filepath.Join(pids, name+".*"))
	must(os.WriteFile(filepath.Join(pids, fmt.Sprintf("%s.%d", name, os.Getpid())), nil, 0o600))
	mine := strings.TrimPrefix(os.Getenv(trouble), name+"=")
	switch {
	case mine == crash:
		fail("I have had enough")
	case mine == portAlwaysGone, mine == portTakenOnce && len(attempts) == 0:
		fail("listen tcp 127.0.0.1:1: bind: address already in use")
	}
	values := valuesOf(arguments)
	answer := http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		switch {
		case mine == neverReady:
			response.WriteHeader(http.StatusInternalServerError)
		case request.Header.Get("Authorization") != credentials(values):
			response.WriteHeader(http.StatusUnauthorized)
		}
	})
	listen(name, values, answer)
	select {}
}

func credentials(values map[string]string) string {
	path, found := values["token-auth-file"]
	if !found {
		return ""
	}
	text, err := os.ReadFile(path)
	must(err)
	token, _, _ := strings.Cut(string(text), ",")
	return "Bearer " + token
}

func listen(name string, values map[string]string, answer http.Handler) {
	address := strings.TrimPrefix(values["client-url"], "http://")
	if name != "etcd" {
		address = "127.0.0.1:" + values["secure-port"]
	}
	listener, err := net.Listen("tcp4", address)
	must(err)
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: answer}}
	if name == "etcd" {
		must(os.MkdirAll(values["data-dir"], 0o700))
		server.Start()
		return
	}
	server.StartTLS()
	if name == "kube-apiserver" {
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		must(os.MkdirAll(values["cert-dir"], 0o700))
		must(os.WriteFile(filepath.Join(values["cert-dir"], "apiserver.crt"), certificate, 0o600))
	}
}

func valuesOf(arguments []string) map[string]string {
	values := map[string]string{}
	for _, argument := range arguments {
		name, value, _ := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		values[name] = value
	}
	return values
}

func must(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(words string) {
	fmt.Fprintln(os.Stderr, words)
	os.Exit(1)
}

// pidsOf gives every stand-in of that name that ever ran, "*" for all.
func pidsOf(t *testing.T, folder, name string) []int {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, name+".*"))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Ext(path)[1:])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// isAlive is false for a zombie: it only waits for somebody to ask for its end.
func isAlive(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return false // gone, maybe while we read
	}
	if err != nil {
		t.Fatal(err)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
