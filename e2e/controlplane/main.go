// Command controlplane is a Kubernetes control plane for tests in one binary:
// etcd, kube-apiserver, kube-controller-manager, kubectl, and `up`, which runs
// the three servers together. See README.md.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"

	// What the upstream main packages register besides their commands.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// commands run one subcommand each and give its exit code. Upstream commands
// claim process-wide state (signal handlers, feature gates) when constructed:
// only the one that runs may be.
var commands = map[string]func() int{
	"etcd":                    func() int { return execute(newEtcdCommand()) },
	"kube-apiserver":          func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() int { return cli.Run(controllermanager.NewControllerManagerCommand()) },
	"kubectl":                 runKubectl,
	"up":                      func() int { return execute(newUpCommand()) },
}

const usage = "usage: controlplane etcd|kube-apiserver|kube-controller-manager|kubectl|up [flags]"

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	// The upstream commands parse os.Args themselves: drop our own name, so
	// that the subcommand's stands first.
	run := commands[os.Args[1]]
	os.Args = os.Args[1:]
	os.Exit(run())
}

// execute runs a command of ours; cobra has printed the error.
func execute(command *cobra.Command) int {
	if command.Execute() != nil {
		return 1
	}
	return 0
}

// runKubectl exits by itself on an error: its words and exit codes are its own.
func runKubectl() int {
	kubectlutil.CheckErr(cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()))
	return 0
}
