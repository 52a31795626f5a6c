# Hands over to CMakeLists.txt, the one native build, for tools that look for a binding.gyp.
# npm does not run it by itself: package.json says "gypfile": false.
{
  'targets': [
    {
      'target_name': 'culvert',
      'type': 'none',
      'actions': [
        {
          'action_name': 'cmake_js',
          'inputs': ['CMakeLists.txt'],
          'outputs': ['build/addon/culvert.node'],
          'action': ['node_modules/node/bin/node', 'node_modules/cmake-js/bin/cmake-js', 'build', '--out', 'build/cmake', '--prefer-make'],
        },
      ],
    },
  ],
}
